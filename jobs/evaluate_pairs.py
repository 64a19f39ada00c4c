#!/usr/bin/env python3
"""Test a model's embeddings on pairs of images: jobs/evaluate_pairs.py MODEL --images X --out Y [OPTIONS]

    jobs/evaluate_pairs.py resnet@champion --images faces-held-out/ --out runs/faces

X has a folder of images for each person, none of whom the model was trained on. pairs.json has the accuracy of
verification in ten folds (persons of a fold in no other), TAR at FAR, and recall@1 and @5; roc.png is the curve.
"""

import sys
from functools import partial

from pipelines import command_line
from pipelines.evaluation.pair_test import PairOutcome, PairTestJob, evaluate_embeddings
from pipelines.models import by_name


def job(argv: list[str]) -> PairOutcome:
    """Resolve the model, and test it."""
    name, asked = command_line.parse_after_model(PairTestJob, argv, __doc__)
    checkpoint, _ = by_name.checkpoint_of(name, asked.network, asked.preprocess)
    from serve.inference.offline_classifier import Offline, classes_trained_on

    opened = partial(Offline, checkpoint, precision=asked.precision)
    outcome = evaluate_embeddings(asked, name, classes_trained_on(checkpoint), opened)
    told = f"{outcome.accuracy:.2f} +- {outcome.std:.2f} % of pairs, recall@1 {outcome.recall['1']:.2f} %"
    print(f"{told}, {outcome.persons} persons: {outcome.out}", file=sys.stderr)
    return outcome


if __name__ == "__main__":
    command_line.run_job(job, "the same command begins anew")
