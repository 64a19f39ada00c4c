#!/usr/bin/env python3
"""Draw docs/pictures/degradation.png from results/trainings: errors of plain nets and ResNets against iterations.

    python docs/pictures/draw.py [--steps 12800]

Reads the rows as JSON and needs matplotlib only, so that the front page does not depend on where a module lies. The
report (jobs/write_report.py) draws the same curves for every setting.
"""

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PANELS = {"plain nets": ("cifar10-plain20", "cifar10-plain56"), "ResNets": ("cifar10-resnet20-A", "cifar10-resnet56-A")}
NAMES = {
    "cifar10-plain20": "plain-20",
    "cifar10-plain56": "plain-56",
    "cifar10-resnet20-A": "ResNet-20",
    "cifar10-resnet56-A": "ResNet-56",
}
COLOURS = ("#0072b2", "#d55e00")  # Okabe and Ito: shallow, deep


def rows(steps: int) -> dict[str, list[dict[str, Any]]]:
    """The finished trainings of each network of PANELS with that many steps, by seed."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in NAMES}
    for path in sorted((ROOT / "results" / "trainings").glob("cifar10-*.json")):
        given = json.loads(path.read_text())
        for row in given if isinstance(given, list) else [given]:
            if row["total"] == steps and row["recipe"]["network"] in found:
                found[row["recipe"]["network"]].append(row)
    return found


def draw(steps: int, out: Path) -> None:
    """Write the picture. Raises ValueError if a network has no training of that length."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    found = rows(steps)
    if missing := [name for name, trainings in found.items() if not trainings]:
        raise ValueError(f"results/trainings must have {steps} steps of each network, none of {', '.join(missing)}")
    figure = Figure(figsize=(7.6, 3.3), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, (title, networks) in zip(axes, PANELS.items(), strict=True):
        lines = []
        for colour, name in zip(COLOURS, networks, strict=True):
            for row in found[name]:
                step, train, test = ([point[i] for point in row["curve"]] for i in (0, 3, 4))
                thousands = [each / 1000 for each in step]
                ax.plot(thousands, train, "--", color=colour, linewidth=0.9)
                ax.plot(thousands, test, color=colour, linewidth=1.8)
            mean = sum(row["top1_error"] for row in found[name]) / len(found[name])
            lines.append(Line2D([], [], color=colour, linewidth=1.8, label=f"{NAMES[name]}: {mean:.1f} %"))
        ax.legend(handles=lines, loc="upper right", frameon=False, title="test error at the end")
        ax.set(title=title, xlabel="iterations (1e3)", xlim=(0, steps / 1000), ylim=(0, 100))
        ax.grid(color="#d8d8d8", linewidth=0.5)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("training error dashed, test error bold (%)")
    figure.savefig(out, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12_800, help="length of the trainings that are drawn")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("degradation.png"))
    words = parser.parse_args()
    draw(words.steps, words.out)
