#!/usr/bin/env python3
"""k-fold cross-validation of a recipe: jobs/train_folds.py RECIPE --data.path FOLDS [--seeds 0 1 2] [OVERRIDES]

    jobs/write_shards.py --source.path DIR --out FOLDS --folds 5         every image is in one val, groups stay whole
    jobs/train_folds.py imagenet-resnet18-B-v1.5@finetune --data.path FOLDS --init WEIGHTS
    jobs/train_folds.py imagenet-resnet18 --data.path FOLDS --seeds 0 1 2 --recipe.epochs 20 --name cells

Trains on each fold with each seed, one after another, and prints the errors with mean and standard deviation. Overrides
go to every training, as in jobs/train_imagenet.py. The same command again goes on where it stopped. No model is
registered: train on all images for one.
"""

import sys

from pipelines import command_line
from pipelines.tuning import cross_validation


def job(argv: list[str]) -> cross_validation.CrossValidated:
    """Train the folds and print their table."""
    if {"-h", "--help"} & set(argv):
        command_line.parse_arguments(cross_validation.CrossValidation, None, ["--help"], __doc__)
    if not argv or argv[0].startswith("-"):
        raise ValueError("RECIPE must come first, e.g. imagenet-resnet18-B-v1.5@finetune")
    words = command_line.with_run_name(argv[1:])
    asked, overrides = command_line.parse_some(cross_validation.CrossValidation, words)
    plan = cross_validation.plan_folds(argv[0], asked, overrides, lambda r, w: command_line.parse_run(r, w, None))
    found = cross_validation.cross_validate(plan)
    print(cross_validation.fold_table(found), file=sys.stderr)
    return found


if __name__ == "__main__":
    command_line.run_job(job)
