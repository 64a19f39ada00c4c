#!/usr/bin/env python3
"""Train a detector of objects: ray job submit --working-dir . -- python jobs/train_detector.py --data.path SHARDS

    jobs/train_detector.py --data.path CELLS --backbone resnet@champion --name cells --model-name cells
    jobs/train_detector.py --data.path CELLS --backbone resnet50-0676ba61.pth --recipe.network imagenet-resnet50-B-v1.5
    jobs/train_detector.py --data.path COCO --recipe.head retinanet --recipe.size 320 --recipe.epochs 12

CELLS are shards that jobs/write_shards.py made of images with boxes in Pascal VOC's or COCO's layout.
--backbone is a classification that the backbone begins with. The head is torchvision's. Every field below can be
overridden; the same command again goes on where the run stopped. --notify URL posts a notice of the end.
"""

import sys

from pipelines import command_line
from pipelines.dense import dense_fit, dense_records, initial_backbone
from pipelines.dense.dense_run import DetectorRun


def job(argv: list[str]) -> dense_records.DenseOutcome:
    """Train one detector and print its table."""
    words = command_line.with_run_name(argv)
    run = command_line.parse_arguments(DetectorRun, None, words, __doc__)
    outcome = dense_fit.fit_dense(initial_backbone.with_its_network(run, words))
    print(dense_records.dense_table(outcome), file=sys.stderr)
    return outcome


if __name__ == "__main__":
    command_line.run_job(job, notifies=True)
