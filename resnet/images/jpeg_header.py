"""Size, orientation and kind of a JPEG, read from its header."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from resnet.images import image_orientation
from resnet.images.checks import jpeg_scans
from resnet.images.checks.image_limits import LIMITS, Limits, TooMuchWork

END = b"\xff\xd9"  # marker of a JPEG's end
HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
MAX_PIXELS = LIMITS.pixels
Data = bytes | memoryview


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """Header of a JPEG, as stored: all that decoding a region needs.

    frame: offset of its frame header; sampling: rows a colour is for; orientation: EXIF's, not applied here.
    """

    height: int
    width: int
    frame: int
    sampling: int
    orientation: int = 1


def read_jpeg_header(data: Data, limits: Limits = LIMITS) -> JpegHeader | None:
    """Header of a complete 8-bit grayscale or three-colour Huffman JPEG within the limits.

    None: anything else, Pillow's business, or that of the limits.
    """
    if data[:2] != b"\xff\xd8":
        return None
    at, frame, orientation = 2, 0, 0
    for _ in range(limits.parts):
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte before the marker
            at += 1
        elif marker == 0xDA:
            return _header(data, frame, at, orientation or 1, limits) if frame else None
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # no length follows: none belongs before the scan
            return None
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            if marker in HUFFMAN_FRAMES:
                frame = at
            elif marker == 0xE1 and not orientation and data[at + 4 : at + 10] == b"Exif\0\0":
                orientation = image_orientation.of_exif(bytes(data[at + 4 : end]))
            at = end
    return None


def _header(data: Data, frame: int, scan: int, orientation: int, limits: Limits) -> JpegHeader | None:
    """data[frame + 4:] is precision, height, width, components, then (id, sampling, table) of each component."""
    if scan < frame + 10 or scan + 5 > len(data):
        return None
    precision, height, width, components = struct.unpack_from(">BHHB", data, frame + 4)
    sampling = [data[frame + 11 + 3 * i] & 15 for i in range(components) if frame + 11 + 3 * i < scan]
    plain = precision == 8 and components in (1, 3) and len(sampling) == components and all(sampling)
    # A truncated file has no end marker (or a thumbnail's, before the scan); an early crop would not notice.
    complete = data[-2:] == END or bytes(data).rfind(END, scan) >= 0
    if not plain or not complete or not 0 < height * width <= limits.pixels:
        return None
    if jpeg_scans.is_buffered(data[frame + 1], components, data[scan + 4]):
        try:
            jpeg_scans.check_scans(data, scan, height, width, limits)
        except TooMuchWork:
            return None
    return JpegHeader(height, width, frame, max(sampling), orientation)
