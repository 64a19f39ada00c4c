#!/usr/bin/env python3
"""Predict many images offline, with the endpoint's numbers: jobs/predict_images.py MODEL --images X --out Y [OPTIONS]

    jobs/predict_images.py resnet@champion --images photos/ --out predictions.parquet
    jobs/predict_images.py resnet/3 --images s3://bucket/shards --split val --out s3://bucket/predictions --embeddings
    jobs/predict_images.py resnet50-0676ba61.pth --network imagenet-resnet50-B-v1.5 --images photos/ --out found.parquet

MODEL is a checkpoint's folder or URI, a model of the registry, or a file with torchvision's weights (.pth,
.safetensors). Ray Data spreads the images over all workers of the cluster of RAY_ADDRESS, or of this machine. OUT is a
folder of Parquet parts, a row an image: after a kill the same command goes on where it was, and a finished one does
nothing. Rows of a detector have boxes, of a segmenter a mask; what is no image has its reason in column `error`. On a
cluster all nodes must reach MODEL, X and Y.
"""

import sys
from functools import partial

from pipelines import command_line
from pipelines.models import by_name
from pipelines.prediction.predict import PredictionOutcome, predict
from pipelines.prediction.prediction_worker import PredictionJob


def job(argv: list[str]) -> PredictionOutcome:
    """Resolve the model, and predict what is missing."""
    name, asked = command_line.parse_after_model(PredictionJob, argv, __doc__)
    checkpoint, version = by_name.checkpoint_of(name, asked.network, asked.preprocess)
    from serve.inference.dense.open_model import open_offline

    opened = partial(open_offline, checkpoint, precision=asked.precision)  # the worker says on which device
    outcome = predict(asked, (name, version), opened)
    print(f"{outcome.images:,} images, {outcome.failed} without prediction: {outcome.out}", file=sys.stderr)
    return outcome


if __name__ == "__main__":
    command_line.run_job(job, "the same command goes on with the parts that are missing")
