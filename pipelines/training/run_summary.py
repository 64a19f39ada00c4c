"""The curves and the table of one finished run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.file_names import below
from pipelines.progress.text_table import text_table
from pipelines.reports import figures
from pipelines.storage import Folder
from resnet.paper.result_rows import CurveRow

if TYPE_CHECKING:
    from pipelines.run import TrainingRun
    from pipelines.training.run_folder import TrainingOutcome
    from resnet.training.checkpoint import EpochRow


def curves(name: str, network: str, rows: Sequence[EpochRow], folder: Path) -> Path:
    """Draw training error (dashed) and validation error (bold) against steps, as the paper does, into a folder: the
    PNG, beside an SVG."""
    curve = [CurveRow(row.step, row.lr, row.train_loss, row.train_error, row.top1_error) for row in rows]
    last = rows[-1].top1_error
    title = name if last is None else f"{name}: {last:.2f} %"
    drawing = figures.error_curves({title: {network: [curve]}})
    figures.save_figure(drawing, folder, "curves")
    return folder / "curves.png"


def keep_beside(place: Folder, drawn: Path) -> str | None:
    """Put a drawing and its SVG into the folder of a run; where the PNG is. None, with a line: it cannot be written."""
    try:
        for file in (drawn, drawn.with_suffix(".svg")):
            with place.writing(file.name) as target:
                target.write(file.read_bytes())
    except OSError as error:  # a full disk: the training has ended well
        print(f"the curves cannot be written to {place.shown}: {error}", file=sys.stderr)
        return None
    return below(place.shown, drawn.name)


def run_table(outcome: TrainingOutcome) -> str:
    """A small table of one run."""
    begun = {} if outcome.init is None else {"begun with": f"{outcome.init}, sha256 {(outcome.init_sha256 or '')[:12]}"}
    rows = begun | {
        "top-1 error": f"{outcome.top1_error:.2f} % of {outcome.examples:,} images (top-5: {outcome.top5_error:.2f} %)",
        "training error": f"{outcome.train_error:.2f} % of the augmented images of the last whole epoch",
        "finished network": _final(outcome),
        "length": f"{outcome.epochs:g} epochs, {outcome.steps:,} steps, {outcome.images_per_second:,.0f} img/s",
        "time": f"{outcome.seconds:.0f} s with start and end",
        **({} if outcome.chosen_epoch is None else {"network": f"of epoch {outcome.chosen_epoch}, the best"}),
        "checkpoint": outcome.checkpoint,
        "MLflow run": outcome.mlflow_run or "none",
        "model": f"resnet version {outcome.model_version}; {outcome.champion}"
        if outcome.model_version
        else "not registered",
        "curves": outcome.curves or "none",
    }
    return named_table(outcome.run, rows)


def named_table(name: str, rows: Mapping[str, str]) -> str:
    """A table of two columns between rules, below a name."""
    lines = [f"  {line}" for line in text_table("ll", (), list(rows.items()))]
    rule = "─" * min(100, max(map(len, lines)))
    return "\n".join(["", name, rule, *lines, rule])


def work_ahead(run: TrainingRun, train: int, val: int, classes: int) -> str:
    """A line on the work of a run. train, val: its images."""
    recipe = run.recipe
    return (
        f"{run.name}: {train:,} training and {val:,} validation images of {classes} classes, "
        f"{recipe.total_steps(train):,} steps of {recipe.optim.batch_size} images"
    )


def _final(outcome: TrainingOutcome) -> str:
    if outcome.final_train_error is None or outcome.final_top1_error is None:
        return "not tested"
    return (
        f"{outcome.final_top1_error:.2f} % top-1 error, {outcome.final_train_error:.2f} % on the training images, in "
        "float32 without augmentation"
    )
