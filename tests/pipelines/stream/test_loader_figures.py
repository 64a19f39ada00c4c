"""What a training is told of its loader: seconds of decoding an image, and batches that were ready."""

import numpy as np

from pipelines.stream.augmentation import Batch
from pipelines.stream.in_memory import Draws
from pipelines.stream.loader_figures import LoaderFigures


def batch(images: int, seconds: float, ready: int | None = None) -> Batch:
    labels = np.zeros(images, np.int64)
    return Batch(np.zeros((images, 1, 1, 3), np.uint8), labels, labels, seconds=seconds, ready=ready)


def test_figures_are_means_since_the_last_reading() -> None:
    figures = LoaderFigures()
    figures.took(batch(10, 1.0, ready=3))
    figures.took(batch(30, 1.0, ready=0))
    assert figures.take() == {"decode_seconds": 2.0 / 40, "ready_batches": 1.5}
    assert figures.take() == {}
    figures.took(batch(4, 1.0))
    assert figures.take() == {"decode_seconds": 0.25}, "tasks do not know what waits"


def test_a_set_in_memory_has_none() -> None:
    figures, none = LoaderFigures(), np.zeros(2, np.int64)
    figures.took(batch(2, 0.0))
    figures.took(Draws(none, none, none, none))
    assert figures.take() == {}
