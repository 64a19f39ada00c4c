"""The paper's claim on detection (section 4.3): the better backbone finds more. mAP of detectors over seeds, paired.

    python -m benchmarks.training.detection_backbones --backbones plain18/step-00001092 resnet18/step-00001092 \
      --seeds 0 1 2 --out results/detection_backbones.json -- --data.path CELLS --recipe.size 160 --recipe.epochs 16

A backbone is a checkpoint of a classification, plain nets and shallower ones among them, or the name of a network,
whose weights are random then: give --recipe.norm trained --recipe.trained-stages 5. What stands behind -- are options
of jobs/train_detector.py for all of them. Each seed trains every backbone, so that differences are of the same order of
images and the same initial heads. A training that was finished is not made again: the same command goes on after a
kill. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.file_names import absolute
from pipelines.reports.significance import paired_interval
from resnet.networks.architectures import parse_network

FIGURES = ("mean_ap", "mean_ap50", "mean_ap75")


def options_of(backbone: str) -> list[str]:
    """A backbone as options of the job."""
    try:
        return ["--recipe.network", parse_network(backbone).name]
    except ValueError:
        return ["--backbone", absolute(backbone)]


def compared(found: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """A line a backbone and figure: mean and deviation over seeds, and the paired difference from the first backbone
    with its 95 % interval, in points. found: figures of each seed, by backbone; seeds in the same order."""
    (base, *_), lines = found, []
    for backbone, rows in found.items():
        for figure in FIGURES:
            values = [row[figure] for row in rows]
            line: dict[str, Any] = {"backbone": backbone, "figure": figure, "values": values}
            line["mean"] = statistics.fmean(values)
            line["std"] = statistics.stdev(values) if len(values) > 1 else None
            if backbone != base:
                differences = [value - first[figure] for value, first in zip(values, found[base], strict=True)]
                low, high = paired_interval(differences)
                line["difference"] = statistics.fmean(differences)
                line["interval"] = [low, high] if low == low else None  # NaN: one seed, or equal differences
            lines.append(line)
    return lines


def shown(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as a table."""
    text = []
    for line in lines:
        spread = "" if line["std"] is None else f" ± {line['std']:.2f}"
        against = "" if "difference" not in line else f"   {line['difference']:+.2f} points"
        if line.get("interval"):
            against += f", 95 % interval {line['interval'][0]:.2f} to {line['interval'][1]:.2f}"
        text.append(f"{line['backbone']:40} {line['figure']:10} {line['mean']:6.2f}{spread} %{against}")
    return "\n".join(text)


def main() -> None:
    """Train what is missing, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", required=True, help="the first is what the others are compared with")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="-- and options of jobs/train_detector.py")
    asked = parser.parse_args()
    from jobs import train_detector

    options = [word for word in asked.options if word != "--"]
    outcomes: dict[str, list[Any]] = {backbone: [] for backbone in asked.backbones}
    for seed in asked.seeds:
        for number, backbone in enumerate(asked.backbones):
            words = [*options, *options_of(backbone), "--seed", str(seed), "--no-promote"]
            outcomes[backbone].append(train_detector.job([*words, "--name", f"backbone{number}-s{seed}"]))
    found = {backbone: [outcome.model_dump() for outcome in rows] for backbone, rows in outcomes.items()}
    lines = compared(found)
    print(shown(lines), file=sys.stderr)
    trained = {backbone: rows[0]["recipe"] for backbone, rows in found.items()}
    answer = json.dumps({"seeds": asked.seeds, "trained": trained, "options": options, "table": lines})
    if asked.out is not None:
        asked.out.write_text(answer + "\n")
    print(answer)


if __name__ == "__main__":
    main()
