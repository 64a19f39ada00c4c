"""The loss of a training, as a part of its recipe. Frozen, validated, no torch here."""

from __future__ import annotations

import importlib.util
import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from resnet.frozen import FrozenSettings

MARGIN, SCALE = 0.5, 64.0  # radians and factor of ArcFace, where none are given (arXiv 1801.07698, section 3.1)


class Loss(FrozenSettings):
    """Cross-entropy and what makes its targets softer, or ArcFace. Training only: evaluation takes plain cross-entropy.

    With mixup and cutmix both, each batch takes one of the two, as likely.
    """

    kind: Annotated[
        Literal["cross-entropy", "arcface"],
        Field(
            description="arcface: embeddings of one class, such as a person, within a cone, with a margin to all "
            "others; for evaluate_pairs and index_images (arXiv 1801.07698)"
        ),
    ] = "cross-entropy"
    margin: Annotated[
        float | None, Field(gt=0, lt=math.pi / 2, description=f"arcface: radians between classes. None: {MARGIN}")
    ] = None
    scale: Annotated[
        float | None, Field(gt=0, description=f"arcface: what cosines are multiplied by. None: {SCALE:g}")
    ] = None
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="share of the target that is spread over all classes")
    ] = 0.0
    mixup: Annotated[
        float | None,
        Field(gt=0, description="alpha: images are blended in pairs, shares from Beta(alpha, alpha); arXiv 1710.09412"),
    ] = None
    cutmix: Annotated[
        float | None,
        Field(gt=0, description="alpha: a box of one image is put into another, area from Beta; arXiv 1905.04899"),
    ] = None
    class_weights: Annotated[
        bool,
        Field(
            description="all classes weigh the same, however few images one has: an image by 1 / images of its class"
        ),
    ] = False

    @model_validator(mode="after")
    def _kind_has_its_own_fields(self) -> Self:
        margins, softened = ("margin", "scale"), ("label_smoothing", "mixup", "cutmix")
        for field in softened if self.kind == "arcface" else margins:
            if (value := getattr(self, field)) not in (None, 0):
                raise ValueError(f"{field} has no effect with kind {self.kind}, got {value}")
        return self

    @property
    def is_angular(self) -> bool:
        """True if the network is trained by the angles between its embeddings and its classes."""
        return self.kind == "arcface"


def require_arcface() -> None:
    """ValueError: the library of the loss is not installed."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise ValueError(
            "loss.kind arcface needs the package pytorch-metric-learning, which is not installed: the extra `uses` "
            "has it"
        )
