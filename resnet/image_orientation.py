"""EXIF orientation: how a camera was held, read from its note, and pixels turned upright by it.

One rule for all images: they are turned upright before anything else is done with them, in preparation, training,
evaluation, prediction and the endpoint, as browsers do. A note that cannot be read means upright.
"""

from __future__ import annotations

import struct

import numpy as np

TAG = 0x0112
SIZES = {1: "B", 3: "H", 4: "I"}  # TIFF's types BYTE, SHORT and LONG

# EXIF orientation -> (transpose first, reverse rows, reverse columns).
TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

Box = tuple[float, float, float, float]


def of_exif(note: bytes) -> int:
    """Orientation, 1 to 8, of an EXIF block with or without its "Exif" mark; 1 if it has none or is damaged.

    Only this tag of the first directory is read: some microseconds, where Pillow reads the values of all.
    """
    note = note.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(note[:2])
    if order is None or len(note) < 10:
        return 1
    (start,) = struct.unpack_from(f"{order}I", note, 4)
    if start + 2 > len(note):
        return 1
    (count,) = struct.unpack_from(f"{order}H", note, start)
    tag = struct.pack(f"{order}H", TAG)
    for at in range(start + 2, min(start + 2 + 12 * count, len(note) - 11), 12):
        if note[at : at + 2] == tag:
            (kind,) = struct.unpack_from(f"{order}H", note, at + 2)
            value = struct.unpack_from(order + SIZES[kind], note, at + 8)[0] if kind in SIZES else 1
            return value if value in TURNS else 1
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, 3) pixels as stored -> upright, contiguous; (W, H, 3) for orientations 5 to 8."""
    if orientation not in TURNS:
        return pixels
    transpose, rows, columns = TURNS[orientation]
    pixels = pixels.transpose(1, 0, 2) if transpose else pixels
    return np.ascontiguousarray(pixels[:: -1 if rows else 1, :: -1 if columns else 1])


def upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """(height, width) of the upright image, from those as stored."""
    return (width, height) if TURNS.get(orientation, (False,))[0] else (height, width)


def stored_box(box: Box, height: int, width: int, orientation: int) -> Box:
    """A (top, left, height, width) box of the upright image -> the same part of the image as stored.

    height, width: of the upright image.
    """
    transpose, rows, columns = TURNS.get(orientation, (False, False, False))
    top, left, tall, wide = box
    top = height - top - tall if rows else top
    left = width - left - wide if columns else left
    return (left, top, wide, tall) if transpose else (top, left, tall, wide)
