"""Records of a run of a detector or segmenter: in MLflow and the registry, its curves, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipelines.reports import figures
from pipelines.tracking.model_registry import Judged
from pipelines.training.mlflow_recorder import Recorder
from pipelines.training.run_summary import named_table
from resnet.frozen import Frozen

if TYPE_CHECKING:
    from resnet.dense.dense_checkpoint import DenseRow

FIGURES = {"detection": ("mean_ap", "mAP"), "segmentation": ("mean_iou", "mIoU")}
PARTS = 1_000_000  # into which 100 % are cut where two versions are compared


class DenseOutcome(Frozen):
    """Outcome of a training. Figures in percent of `examples` validation images, after the last step; by_class: AP at
    an IoU of 0.5 or IoU of each class that is there; seconds: of this start, train_seconds: of the steps of all."""

    run: str
    task: str
    recipe: str
    seed: int
    mean_ap: float | None = None
    mean_ap50: float | None = None
    mean_ap75: float | None = None
    mean_iou: float | None = None
    pixel_accuracy: float | None = None
    by_class: dict[str, float | None] = Field(default_factory=dict)
    examples: int
    epochs: float
    steps: int
    seconds: float
    train_seconds: float
    images_per_second: float
    data: str
    checkpoint: str
    commit: str = "unknown"
    hardware: str = "unknown"
    backbone: str | None = None
    backbone_sha256: str | None = None
    mlflow_run: str | None = None
    model_name: str | None = None
    model_version: str | None = None
    champion: str | None = None
    curves: str | None = None

    @property
    def quality(self) -> float:
        """mAP or mIoU in percent."""
        value = getattr(self, FIGURES[self.task][0])
        assert value is not None  # the end of a training is always evaluated
        return value


@dataclass(frozen=True)
class JudgedByQuality(Judged):
    """The judgement of a detector or segmenter. wrong: what is lacking to 100 % of mAP or mIoU, in millionths."""

    @classmethod
    def by_quality(cls, quality: float, examples: int, data: str, task: str, protocol: str, name: str) -> Judged:
        """From mAP or mIoU in percent."""
        return cls(round(PARTS * (100 - quality) / 100), examples, data, protocol, name=name, task=task)

    @property
    def figure(self) -> str:
        """mAP or mIoU."""
        return FIGURES[self.task][1]

    def shown(self, wrong: int) -> str:
        """The figure as people read it."""
        return f"{100 - 100 * wrong / PARTS:.2f} %"

    @property
    def tags(self) -> dict[str, str]:
        """Tags of a registered version."""
        name = FIGURES[self.task][0]
        shared = {"data": self.data, "protocol": self.protocol, "task": self.task, "examples": str(self.examples)}
        return shared | {name: repr(100 - 100 * self.wrong / PARTS)}

    def other(self, tags: dict[str, str]) -> str | None:
        """By what else a version was judged, or None where the two can be compared."""
        if (found := super().other(tags)) is not None or tags.get("protocol") == self.protocol:
            return found
        return f"by {tags.get('protocol')}, this one by {self.protocol}"

    def wrong_of(self, tags: dict[str, str]) -> int:
        """Millionths that a version lacks to 100 %."""
        return round(PARTS * (100 - float(tags[FIGURES[self.task][0]])) / 100)


class DenseRecorder(Recorder):
    """Follows a run into MLflow as Recorder does, with its own rows and checkpoints."""

    def _row(self, fields: dict[str, Any]) -> DenseRow:
        from resnet.dense.dense_checkpoint import DenseRow

        return DenseRow(**fields)

    def _published(self, checkpoint: str, data: str) -> Any:
        from pipelines.models.by_name import read_dense

        return read_dense(checkpoint)


def dense_curves(name: str, task: str, rows: Sequence[DenseRow], folder: Path) -> Path:
    """Draw the training loss and the figure of the validation images against steps, into a folder: the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    attribute, label = FIGURES[task]
    drawing = Figure(figsize=(8, 3), layout="constrained")
    FigureCanvasAgg(drawing)
    left, right = drawing.subplots(1, 2)
    left.plot([row.step for row in rows], [row.train_loss for row in rows])
    left.set(xlabel="step", ylabel="training loss", ylim=(0, None), title=name)
    judged = [(row.step, getattr(row, attribute)) for row in rows if getattr(row, attribute) is not None]
    right.plot(*zip(*judged, strict=True), marker=".")
    right.set(xlabel="step", ylabel=f"{label} in %", ylim=(0, 100), title=f"{label} {judged[-1][1]:.1f} %")
    figures.save_figure(drawing, folder, "curves")
    return folder / "curves.png"


def dense_table(outcome: DenseOutcome) -> str:
    """A small table of one run."""
    names = {"mean_ap": "mAP", "mean_ap50": "AP at IoU 0.5", "mean_ap75": "AP at IoU 0.75", "mean_iou": "mIoU"}
    names |= {"pixel_accuracy": "pixel accuracy"}
    found = {text: getattr(outcome, name) for name, text in names.items() if getattr(outcome, name) is not None}
    rows = {text: f"{value:.2f} % on {outcome.examples:,} images" for text, value in found.items()}
    rows |= {f"  {name}": "-" if value is None else f"{value:.2f} %" for name, value in outcome.by_class.items()}
    rows |= {
        "length": f"{outcome.epochs:g} epochs, {outcome.steps:,} steps, {outcome.images_per_second:,.1f} img/s",
        "time": f"{outcome.seconds:.0f} s with start and end",
        "checkpoint": outcome.checkpoint,
        "MLflow run": outcome.mlflow_run or "none",
        "model": f"{outcome.model_name} version {outcome.model_version}; {outcome.champion}"
        if outcome.model_version
        else "not registered",
        "curves": outcome.curves or "none",
    }
    return named_table(outcome.run, rows)
