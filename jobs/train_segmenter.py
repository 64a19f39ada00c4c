#!/usr/bin/env python3
"""Train a segmenter of images: ray job submit --working-dir . -- python jobs/train_segmenter.py --data.path SHARDS

    jobs/train_segmenter.py --data.path CELLS --backbone resnet@champion --name masks --model-name masks
    jobs/train_segmenter.py --data.path CITY --recipe.head deeplabv3 --recipe.network imagenet-resnet50-B
    jobs/train_segmenter.py --data.path CELLS --recipe.size 256 --recipe.turns --recipe.epochs 100

CELLS are shards that jobs/write_shards.py made of images with masks: folders, or Cityscapes' or Pascal VOC's layout.
--backbone is a classification that the backbone begins with. The head is torchvision's. Every field below can be
overridden; the same command again goes on where the run stopped. --notify URL posts a notice of the end.
"""

import sys

from pipelines import command_line
from pipelines.dense import dense_fit, dense_records, initial_backbone
from pipelines.dense.dense_run import SegmenterRun


def job(argv: list[str]) -> dense_records.DenseOutcome:
    """Train one segmenter and print its table."""
    words = command_line.with_run_name(argv)
    run = command_line.parse_arguments(SegmenterRun, None, words, __doc__)
    outcome = dense_fit.fit_dense(initial_backbone.with_its_network(run, words))
    print(dense_records.dense_table(outcome), file=sys.stderr)
    return outcome


if __name__ == "__main__":
    command_line.run_job(job, notifies=True)
