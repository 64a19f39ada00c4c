"""Claim: a checkpoint costs the training loop a copy in memory; writing it happens beside the steps.

    python benchmarks/training/saving.py --network imagenet-resnet50-B --out results/saving.json

Weights and momentum are handed to the writer as the loop does it, to a folder and, if --uri names one, to a bucket: the
seconds that the loop waits (and CPU seconds of it, which others on the machine hardly move), against the seconds until
the checkpoint is whole. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from pipelines import provenance
from pipelines.models.checkpoint_store import CheckpointStore, Writer
from pipelines.training.learner import copied
from resnet import build
from resnet.host.hardware import describe_hardware
from resnet.image_class import ImageClass
from resnet.training.checkpoint import Checkpoint, Progress


def measure(network: str, place: str, repeats: int) -> dict[str, float]:
    """Medians of seconds that the loop waits, of CPU seconds within, and of seconds that a checkpoint takes."""
    model = build(network, 1000)
    momentum = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    classes = (ImageClass(id=0, wnid="n0", name="zero"),)
    writer, waits, cpu, wholes = Writer(CheckpointStore(place, keep=1)), [], [], []
    for step in range(1, repeats + 2):
        began, busy = time.perf_counter(), time.process_time()
        progress = Progress(step=step, total_steps=repeats + 1, examples=1, classes=classes)
        writer.submit(Checkpoint(copied(model.state_dict()), copied(momentum), {}, {"seed": 0}, progress))
        waits.append(time.perf_counter() - began)
        cpu.append(time.process_time() - busy)
        writer.flush()
        wholes.append(time.perf_counter() - began)
    writer.close()
    if writer.trouble:
        raise ValueError(writer.trouble)
    seconds = {"loop_s": waits, "loop_cpu_s": cpu, "whole_s": wholes}
    return {name: round(statistics.median(values[1:]), 4) for name, values in seconds.items()}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="imagenet-resnet50-B")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--uri", help="a bucket to write to, too")
    parser.add_argument("--out", help="file for the result, too")
    words = parser.parse_args()
    about = {"command": f"benchmarks/training/saving.py {' '.join(sys.argv[1:])}", "commit": provenance.git_commit()}
    result = about | {"hardware": describe_hardware(), "network": words.network}
    with tempfile.TemporaryDirectory(prefix="saving-") as folder:
        result["folder"] = measure(words.network, str(Path(folder) / "run"), words.repeats)
    if words.uri:
        result["uri"] = measure(words.network, words.uri, words.repeats)
    if words.out:
        Path(words.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
