#!/usr/bin/env python3
"""Test a trained network by a protocol of the paper: jobs/evaluate_model.py MODEL [MODEL ...] [OPTIONS]

    jobs/evaluate_model.py resnet@champion                                as in training, on the same shards
    jobs/evaluate_model.py runs/imagenet-resnet50-B.s0/step-00600000 --data.path SHARDS --protocol 10-crop
    jobs/evaluate_model.py A B C --data.path SHARDS --protocol multi-scale              an ensemble
    jobs/evaluate_model.py resnet-cells@champion --data.split test --report REPORT      a page for the team
    jobs/evaluate_model.py resnet50-0676ba61.pth --network imagenet-resnet50-B-v1.5 --data.path SHARDS

MODEL is a checkpoint's folder or URI, a model of the registry (resnet@champion, resnet/3), or a file with torchvision's
weights (.pth, .safetensors). Of several models the scores are averaged. Lengths of a protocol are given for networks
that see 224 pixels, and scale with the recipe's size.
"""

import itertools
import sys

from pipelines import command_line
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.evaluation.outcome import EvaluationOutcome, evaluation_table


def job(argv: list[str]) -> EvaluationOutcome:
    """Test, print the tables, return the figures."""
    names = list(itertools.takewhile(lambda word: not word.startswith("-"), argv))
    asked = command_line.parse_arguments(Evaluation, Evaluation(), argv[len(names) :], __doc__)
    details = evaluate(names, asked)
    print(evaluation_table(details), file=sys.stderr)
    return details.outcome


if __name__ == "__main__":
    command_line.run_job(job, "nothing is kept, the same command begins anew")
