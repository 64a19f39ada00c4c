#!/usr/bin/env python3
"""Recreate a comparison of the paper: table2, table3, table6, figure1, figure4, figure6, figure7 or degradation.

    jobs/sweep_paper.py table6 --seeds 0 --recipe.epochs 2                on the embedded digits, in minutes
    jobs/sweep_paper.py table6 --data.path CIFAR --seeds 0 1 2            the paper's setting
    jobs/sweep_paper.py degradation --data.path CIFAR --recipe.steps 6400 a tenth of it: plain and residual, 20 and 56
    jobs/sweep_paper.py table6 --networks cifar10-resnet110 --data.path CIFAR

Overrides (--recipe.*, --data.*, --scaling.*, --storage; see jobs/train_imagenet.py --help) go to every run. The same
command again goes on where the sweep stopped. --notify URL posts a notice of the end.
"""

import sys

from pipelines import command_line
from pipelines.tuning import paper_sweep


def job(argv: list[str]) -> dict[str, object]:
    """Run the sweep and print its table."""
    named = argv[0] if argv and not argv[0].startswith("-") else ""
    if {"-h", "--help"} & set(argv):
        command_line.parse_arguments(paper_sweep.Sweep, None, ["--help"], __doc__)
    options, overrides = command_line.parse_some(paper_sweep.Sweep, argv[1:])
    planned = paper_sweep.trials(named, options, overrides, lambda run, words: command_line.parse_run(run, words, None))
    done = paper_sweep.run_sweep(named, options, planned)
    print(paper_sweep.comparison_table(named, done), file=sys.stderr)
    failed = {t.run.name: t.failure for t in done if t.failure is not None}
    rows = [t.outcome.model_dump(mode="json") for t in done if t.outcome is not None]
    return {"sweep": named, "runs": rows, "failed": failed}


if __name__ == "__main__":
    command_line.run_job(job, notifies=True)
