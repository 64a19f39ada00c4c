#!/usr/bin/env python3
"""Search lr and weight decay of a network: jobs/search_recipe.py NETWORK [OPTIONS] [OVERRIDES]

    jobs/search_recipe.py cifar10-resnet20 --data.path CIFAR --trials 20         Optuna proposes, the best train in full
    jobs/search_recipe.py cifar10-resnet8 --sampler grid --points 3 --scheduler none --recipe.epochs 6
    jobs/search_recipe.py cifar10-resnet20 --data.path CIFAR --scheduler pbt --trials 4 --grace 2    all members at once

Settings are judged by a tenth of the training images, which are held out (45,000/5,000 of CIFAR-10, as in section 4.2
of the paper); --data.holdout N names another number, and 0 judges by the validation split, which for CIFAR-10 are the
test images. Overrides go to every training, as in jobs/sweep_paper.py. The same command again goes on.
--notify URL posts a notice of the end.
"""

import sys

from pipelines import command_line
from pipelines.tuning import recipe_search, search_space


def job(argv: list[str]) -> recipe_search.Found:
    """Search and print the table of settings."""
    if {"-h", "--help"} & set(argv):
        command_line.parse_arguments(search_space.Search, None, ["--help"], __doc__)
    named = argv[0] if argv and not argv[0].startswith("-") else ""
    options, overrides = command_line.parse_some(search_space.Search, argv[1:])
    found = recipe_search.search(named, options, overrides, lambda run, words: command_line.parse_run(run, words, None))
    print(recipe_search.search_table(found), file=sys.stderr)
    return found


if __name__ == "__main__":
    command_line.run_job(job, notifies=True)
