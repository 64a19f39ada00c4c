"""Tables and figures of runs, for a person to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.train import Outcome
    from resnet.checkpoint import EpochRow


def curves(name: str, rows: Sequence[EpochRow], home: str) -> str:
    """Draw training error (dashed) and validation error (bold) against steps, as the paper does; the PNG's path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(title=name, xlabel="steps", ylabel="error (%)")
    steps = [row.step for row in rows]
    axes.plot(steps, [row.train_error for row in rows], "--", color="tab:blue", linewidth=1, label="training")
    axes.plot(steps, [row.top1_error for row in rows], color="tab:blue", linewidth=2.2, label="validation")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(title=f"last: {rows[-1].top1_error:.2f} %")
    out = Path(home) / "figures" / f"{name}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
    return str(out)


def table(outcome: Outcome) -> str:
    """A small table of one run."""
    rows = {
        "top-1 error": f"{outcome.top1_error:.2f} % of {outcome.examples:,} images (top-5: {outcome.top5_error:.2f} %)",
        "training error": f"{outcome.train_error:.2f} % in the last epoch",
        "length": f"{outcome.epochs:g} epochs, {outcome.steps:,} steps, {outcome.images_per_second:,.0f} img/s",
        "time": f"{outcome.seconds:.0f} s with start and end",
        "checkpoint": outcome.checkpoint,
        "MLflow run": outcome.mlflow_run or "none",
        "model": f"resnet version {outcome.model_version}; {outcome.champion}"
        if outcome.model_version
        else "not registered",
        "curves": outcome.curves or "none",
    }
    width = max(map(len, rows))
    lines = [f"  {name:<{width}}  {value}" for name, value in rows.items()]
    rule = "─" * min(100, max(map(len, lines)))
    return "\n".join(["", outcome.run, rule, *lines, rule])
