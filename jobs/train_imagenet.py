#!/usr/bin/env python3
"""Train a network of the paper: ray job submit --working-dir . -- python jobs/train_imagenet.py [RECIPE] [OVERRIDES]

    jobs/train_imagenet.py                                          the demonstration: ResNet-20 on handwritten digits
    jobs/train_imagenet.py imagenet-resnet50-B --data.path s3://bucket/shards --storage s3://bucket/runs
    jobs/train_imagenet.py imagenet-resnet18 --data.path OUT --recipe.epochs 1 --recipe.images.size 128
    jobs/train_imagenet.py imagenet-resnet50-B-v1.5@finetune --data.path SHARDS --init resnet50-11ad3fa6.pth
    jobs/train_imagenet.py cifar10-plain56 --data.path CIFAR --recipe.optim.lr 0.05 --name low-lr --model-name plain

RECIPE is <network>[@<variant>]; `python -m resnet.paper` lists the networks. Every field below can be
overridden. The same command again goes on where the run stopped. Lengths of --recipe.images are in pixels;
--recipe.images.size is the side of the square that the network sees. --notify URL posts a notice of the end.
"""

import sys

from pipelines import command_line
from pipelines.models import initial_weights
from pipelines.training import fit, run_folder, run_summary


def job(argv: list[str]) -> run_folder.TrainingOutcome:
    """Train one run and print its table."""
    named = argv[:1] if argv and not argv[0].startswith("-") else []
    data_is_given = any(word.startswith("--data.path") for word in argv)
    if not named and not data_is_given and not {"-h", "--help"} & set(argv):
        print("No recipe is named: this is the demonstration, ResNet-20 on handwritten digits.", file=sys.stderr)
    recipe = named[0] if named else "cifar10-resnet20"
    start, words = initial_weights.start_of(recipe, argv[len(named) :], data_is_given)
    words = command_line.with_run_name(words)
    run = command_line.parse_run(start, words, __doc__)
    outcome = fit.fit(run)
    print(run_summary.run_table(outcome), file=sys.stderr)
    return outcome


if __name__ == "__main__":
    command_line.run_job(job, notifies=True)
