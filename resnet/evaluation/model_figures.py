"""Figures of a trained model by class, kept beside its checkpoint: what its endpoint says of itself, and thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from resnet.frozen import Frozen, sentence

FIGURES = "figures.json"
Share = Annotated[float, Field(ge=0, le=1)]


class FigureRange(Frozen):
    """A share from 0 to 1 and the ends of its 95 % interval; None where it is not defined."""

    value: Share | None = None
    low: Share | None = None
    high: Share | None = None


class OutputFigures(Frozen):
    """One output of a network. id: its number; images: of its class that were tested; threshold: the probability from
    which on it counts as found, with the sensitivity that was wished; None: the class had no images."""

    id: int
    images: int
    sensitivity: FigureRange
    specificity: FigureRange
    precision: FigureRange
    auroc: FigureRange
    threshold: Share | None
    specificity_there: FigureRange


class ModelFigures(Frozen):
    """A model on a split of data. ece: expected calibration error."""

    data: str
    split: str
    images: int
    accuracy: FigureRange
    balanced_accuracy: FigureRange
    ece: FigureRange
    wished_sensitivity: Share
    classes: tuple[OutputFigures, ...]

    @property
    def thresholds(self) -> dict[int, float]:
        """By the number of an output."""
        return {each.id: each.threshold for each in self.classes if each.threshold is not None}


def read_figures(folder: Path) -> ModelFigures | None:
    """The figures of a checkpoint's folder; None: it has none. ValueError: they are damaged."""
    path = folder / FIGURES
    if not path.is_file():
        return None
    try:
        return ModelFigures.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{FIGURES} of {folder} is damaged: {sentence(error)}") from None
