#!/usr/bin/env python3
"""Index many images for search by image: jobs/index_images.py MODEL --images X --out INDEX [OPTIONS]

    jobs/index_images.py resnet@champion --images photos/ --out runs/photos.index
    jobs/deploy_best.py --index runs/photos.index           then POST /v1/search

MODEL is a checkpoint, a model of the registry, or a file of weights as torchvision has it. Ray Data spreads the images
over all workers of the cluster of RAY_ADDRESS, or of this machine. After a kill the same command goes on where it
was, and a finished one does nothing. An index is of one model: /v1/search of another refuses it.
"""

import sys
from functools import partial

from pipelines import command_line
from pipelines.models import by_name
from pipelines.prediction.image_index import IndexJob, IndexOutcome, index_images


def job(argv: list[str]) -> IndexOutcome:
    """Resolve the model, embed what is missing, and index it."""
    name, asked = command_line.parse_after_model(IndexJob, argv, __doc__)
    checkpoint, version = by_name.checkpoint_of(name, asked.network, asked.preprocess)
    from serve.inference.offline_classifier import Offline, index_card

    outcome = index_images(
        asked, index_card(checkpoint, name, version), partial(Offline, checkpoint, precision=asked.precision)
    )
    print(f"{outcome.images:,} images, {outcome.failed} without embedding: {outcome.out}", file=sys.stderr)
    return outcome


if __name__ == "__main__":
    command_line.run_job(job, "the same command goes on with the parts that are missing")
