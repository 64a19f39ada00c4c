"""Feed: what travels from the job to every worker of the data of a run. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.stream import Split
from resnet.classes import ImageClass


@dataclass(frozen=True)
class Feed:
    """All that a worker needs of the data.

    pixels: "mean" (3, S, S) or (3, 1, 1) and "std" (3, 1, 1) of the training set, in [0, 255], float32.
    resident: object references of decoded splits by name, or None if they are streamed.
    grey_range: levels that preparation made 0 and 255, for the checkpoint.
    """

    train: Split
    val: Split
    classes: tuple[ImageClass, ...]
    pixels: dict[str, np.ndarray]
    resident: dict[str, Any] | None
    grey_range: tuple[int, int] | None = None
