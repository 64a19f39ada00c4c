"""Portable bitmaps, greymaps and pixmaps (PBM, PGM, PPM), plain and binary, by numpy.

Pillow reads them too, but those with another maximum than 255, and all plain ones, in Python: 0.3 to 0.6 s a megapixel.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from resnet.image_limits import CorruptImage, Limits

GAP = rb"(?:[ \t\n\v\f\r]|#[^\r\n]*[\r\n])+"
HEADER = re.compile(rb"P([1-6])" + GAP + rb"(\d{1,10})" + GAP + rb"(\d{1,10})(?=[ \t\n\v\f\r#])")
MAXIMUM = re.compile(GAP + rb"(\d{1,10})(?=[ \t\n\v\f\r#])")
COMMENT = re.compile(rb"#[^\r\n]*")
NUMBERS, BLANKS = b"0123456789", b" \t\n\v\f\r"


class Portable(NamedTuple):
    """The header. magic: 1 to 6; maximum: the declared highest level, 1 of a bitmap; begin: of the pixels."""

    magic: int
    height: int
    width: int
    maximum: int
    begin: int

    @property
    def channels(self) -> int:
        """1, or 3 of a pixmap."""
        return 3 if self.magic in (3, 6) else 1

    @property
    def is_plain(self) -> bool:
        """Pixels are written as decimal numbers."""
        return self.magic < 4


def read_header(data: bytes) -> Portable:
    """Raises CorruptImage if it is damaged."""
    found = HEADER.match(data, 0, 2**16)
    if found is None:
        raise CorruptImage("a PNM must have a readable header, its width and height are not")
    magic, width, height = (int(value) for value in found.groups())
    if magic in (1, 4):
        return Portable(magic, height, width, 1, found.end() + 1)
    most = MAXIMUM.match(data, found.end(), found.end() + 2**16)
    if most is None or not 1 <= int(most[1]) <= 65535:
        raise CorruptImage("a PNM must have a highest level of 1 to 65535, its header has none")
    return Portable(magic, height, width, int(most[1]), most.end() + 1)


def levels(data: bytes, limits: Limits) -> tuple[np.ndarray, int]:
    """(H, W) or (H, W, 3) levels, uint8 or uint16, and the highest level there may be. Raises CorruptImage."""
    header = read_header(data)
    limits.check_pixels(header.height, header.width)
    shape = (header.height, header.width, 3)[: 3 if header.channels == 3 else 2]
    if header.magic == 4:
        packed = _taken(data, header, header.height * -(-header.width // 8), np.dtype(np.uint8))
        bits = np.unpackbits(packed.reshape(header.height, -1), axis=1, count=header.width)
        return 1 - bits, 1
    count = header.height * header.width * header.channels
    if header.is_plain:
        values = _numbers(data, header, count)
    else:
        kind = np.dtype(np.uint8 if header.maximum < 256 else ">u2")
        values = _taken(data, header, count, kind)
    if header.is_plain and (highest := int(values.max())) > header.maximum:
        raise CorruptImage(f"a PNM must have levels up to its {header.maximum}, got {highest}")
    kind = np.uint8 if header.maximum < 256 else np.uint16
    return np.minimum(values, header.maximum).astype(kind).reshape(shape), header.maximum


def scaled(values: np.ndarray, maximum: int) -> np.ndarray:
    """Levels 0 to maximum -> 0 to 255, uint8, rounded as Pillow rounds."""
    if maximum == 255:
        return values
    return np.rint(np.arange(maximum + 1) / maximum * 255).astype(np.uint8)[values]


def _taken(data: bytes, header: Portable, count: int, kind: np.dtype) -> np.ndarray:
    if len(data) < header.begin + count * kind.itemsize:
        raise CorruptImage(f"a PNM must be complete, got {header.width} x {header.height}: it is truncated")
    return np.frombuffer(data, kind, count, header.begin)


def _numbers(data: bytes, header: Portable, count: int) -> np.ndarray:
    """Decimal numbers; those of a bitmap are digits, and need no blanks between them."""
    text = COMMENT.sub(b" ", data[header.begin - 1 :])
    if text.translate(None, NUMBERS + BLANKS):
        raise CorruptImage("a plain PNM must have decimal numbers for its pixels, got other characters")
    if header.magic == 1:
        digits = np.frombuffer(text.translate(None, BLANKS), np.uint8)[:count] - ord("0")
        if len(digits) == count and digits.max() > 1:
            raise CorruptImage("a PBM must have 0 and 1 for its pixels, got other digits")
        values = 1 - digits
    else:
        values = np.fromstring(text, np.int64, sep=" ")[:count]  # a count that is not there would be left unset
    if len(values) < count:
        raise CorruptImage(f"a PNM must be complete, got {header.width} x {header.height}: it is truncated")
    return values
