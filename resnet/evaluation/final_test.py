"""The test of a finished network: which images it gets right, without augmentation, in float32. No torch here."""

from __future__ import annotations

import base64
from typing import Annotated

import numpy as np
from pydantic import Field

from resnet.frozen import Frozen

FINAL_TEST = "final_test.json"  # in a run's folder
Percent = Annotated[float, Field(ge=0, le=100)]


class FinalTest(Frozen):
    """Errors of the finished network in percent, in float32, one centre crop an image or the whole image for CIFAR.

    train_error: top-1 of the whole training split, which the running error of an epoch is not: that one is of augmented
    images, by batch statistics, while the weights change. right: which validation images are classified correctly, as
    `packed` writes them; predictions_sha256: of the Parquet file with the predictions, beside the checkpoint.
    """

    train_error: Percent
    train_examples: int
    top1_error: Percent
    top5_error: Percent
    examples: int
    predictions_sha256: str
    right: str

    def are_right(self) -> np.ndarray:
        """(examples,) bool, in the order of the validation split."""
        return unpacked(self.right, self.examples)


def packed(right: np.ndarray) -> str:
    """(N,) bool as text: eight images a byte, the first in the highest bit, in base 64. 10,000 images take 1.7 KB."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def unpacked(text: str, examples: int) -> np.ndarray:
    """The inverse of `packed`. ValueError: the text is not of so many images."""
    bits = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    if len(bits) != -(-examples // 8):
        raise ValueError(f"right must hold {examples} images, got {8 * len(bits)} bits")
    return np.unpackbits(bits, count=examples).astype(bool)
