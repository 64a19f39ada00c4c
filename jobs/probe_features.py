#!/usr/bin/env python3
"""Train the classifier of a network alone, on its features: jobs/probe_features.py MODEL --data.path SHARDS [OPTIONS]

    jobs/probe_features.py resnet50-11ad3fa6.pth --data.path SHARDS        minutes on a CPU; features are kept
    jobs/probe_features.py resnet@champion --data.path SHARDS --class-weights --out PROBE

MODEL is a checkpoint's folder or URI, a model of the registry, or weights of torchvision, timm or Hugging Face. What
comes out is a checkpoint: jobs/train_imagenet.py --init goes on from it, jobs/deploy_best.py --checkpoint serves it.
"""

import sys

from pipelines import command_line
from pipelines.evaluation.linear_probe import Probe, ProbeOutcome, probe, probe_table


def job(argv: list[str]) -> ProbeOutcome:
    """Probe and print the table."""
    name, asked = command_line.parse_after_model(Probe, argv, __doc__)
    outcome = probe(name, asked)
    print(probe_table(outcome), file=sys.stderr)
    return outcome


if __name__ == "__main__":
    command_line.run_job(job)
