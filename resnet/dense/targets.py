"""Targets of an image: boxes with classes, or a mask with a class a pixel; as bytes and as arrays."""

from __future__ import annotations

import io
import json
from typing import NamedTuple, Self

import numpy as np
from PIL import Image

IGNORED = 255  # in a mask: a pixel that neither trains nor counts
MOST_CLASSES = IGNORED


class Boxes(NamedTuple):
    """boxes: (N, 4) float32, left, top, right and bottom in pixels; labels: (N,) int64, ids of classes; ignored: (N,)
    bool, what neither trains nor counts: VOC's difficult objects and COCO's crowds."""

    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    @classmethod
    def of(cls, boxes: list[list[float]], labels: list[int], ignored: list[bool] | None = None) -> Self:
        """From lists."""
        return cls(
            np.asarray(boxes, np.float32).reshape(-1, 4),
            np.asarray(labels, np.int64),
            np.asarray(ignored if ignored is not None else [False] * len(labels), bool),
        )

    @classmethod
    def decoded(cls, data: bytes) -> Self:
        """From the bytes of a shard."""
        fields = json.loads(data)
        return cls.of(fields["boxes"], fields["labels"], fields["ignored"])

    def encoded(self) -> bytes:
        """As the shards have it: JSON."""
        fields = {"boxes": self.boxes.tolist(), "labels": self.labels.tolist(), "ignored": self.ignored.tolist()}
        return json.dumps(fields, separators=(",", ":")).encode()

    def mirrored(self, width: int) -> Self:
        """In the image mirrored left to right."""
        left, top, right, bottom = self.boxes.T
        return self._replace(boxes=np.stack([width - right, top, width - left, bottom], 1))

    def turned(self, height: int, width: int, quarters: int) -> Self:
        """In the image turned by quarters, counter-clockwise as np.rot90 turns it. height, width: before."""
        boxes = self.boxes
        for _ in range(quarters % 4):
            left, top, right, bottom = boxes.T
            boxes = np.stack([top, width - right, bottom, width - left], 1)
            height, width = width, height
        return self._replace(boxes=boxes)

    def kept(self) -> Self:
        """Without the ignored ones."""
        return type(self)(*(column[~self.ignored] for column in self))


def encoded_mask(mask: np.ndarray) -> bytes:
    """A mask (H, W) uint8, class ids or IGNORED, as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def decoded_mask(data: bytes) -> np.ndarray:
    """Values of a mask's file, (H, W) uint8: indices of a palette as they are, grey levels. ValueError: it has none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in ("L", "P", "1", "I", "I;16"):
                raise ValueError(f"a mask must have one value a pixel, got an image of mode {image.mode}")
            values = np.asarray(image)
    except OSError as error:
        raise ValueError(f"a mask must be an image that can be decoded, got {error}") from None
    if values.dtype != np.uint8 and values.max(initial=0) > IGNORED:
        raise ValueError(f"a mask must have values of at most {IGNORED}, got {values.max()}")
    return values.astype(np.uint8)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE of a binary mask (H, W): lengths of runs of 0, 1, 0, ..., down the columns."""
    flat = np.asarray(mask, bool).ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def from_run_lengths(counts: list[int], height: int, width: int) -> np.ndarray:
    """The binary mask (H, W) of an RLE."""
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape((height, width), order="F")
