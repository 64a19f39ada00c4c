"""The frame, scans and orientation of a JPEG of any process, from its markers alone; nothing is decoded.

A progressive JPEG is decoded scan by scan, and each scan visits every block of the image, even one of 75 bytes that
changes nothing. The same scan repeated 2,700 times, 207 kB, takes libjpeg 8 seconds at 49 million pixels
(libjpeg-turbo#252), so scans are counted first. Markers are found as libjpeg finds them: segments are passed over by
their length, and everything between them is searched for the next marker.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

from resnet.images import image_orientation
from resnet.images.checks.image_limits import LIMITS, Limits

Data = bytes | memoryview

# Markers that matter: frames, tables, scans, application notes, the end. Stuffed zeros, fill bytes, restarts and
# reserved markers, which have no length, are searched over at some hundred MB/s.
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
EOI, SOS, APP1 = 0xD9, 0xDA, 0xE1
TABLES = {0xC4, 0xC8, 0xCC}  # between the frame markers, but no frames: Huffman tables, reserved, arithmetic tables
KEPT_NOTES = {0xE0, 0xEE}
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}


class Frame(NamedTuple):
    """Contents of the headers before the first scan. scan: offset of the first scan's marker; marker: of the frame."""

    marker: int
    precision: int
    height: int
    width: int
    components: int
    scan: int
    buffered: bool
    orientation: int


def segments(data: Data, start: int = 2) -> Iterator[tuple[int, int, int]]:
    """(marker, first byte of its content, end) of each segment up to the end marker; content may be cut short."""
    at = start
    while (found := MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker == EOI or at + 2 > len(data):
            return
        begin, at = at + 2, at + max(2, int.from_bytes(data[at : at + 2], "big"))
        yield marker, begin, at


def read_frame(data: Data, limits: Limits = LIMITS) -> Frame | None:
    """The frame of a JPEG; None if there is no frame or no scan. Raises TooMuchWork for too many segments."""
    frame, orientation = None, 0
    for count, (marker, begin, end) in enumerate(segments(data), 1):
        limits.check_parts(count, "segments")
        if marker == APP1 and not orientation and data[begin : begin + 6] == b"Exif\0\0":
            orientation = image_orientation.of_exif(bytes(data[begin:end]))
        elif marker == SOS:
            if frame is None or begin >= len(data):
                return None
            marker, (precision, height, width, components) = frame
            buffered = is_buffered(marker, components, data[begin])
            return Frame(marker, precision, height, width, components, begin - 4, buffered, orientation or 1)
        elif 0xC0 <= marker <= 0xCF and marker not in TABLES and begin + 6 <= len(data):
            frame = marker, struct.unpack_from(">BHHB", data, begin)
    return None


def without_notes(data: bytes) -> bytes:
    """The JPEG without comments and the notes of cameras and editors, but JFIF's and Adobe's, which tell its colours.

    Pillow parses them while it opens a file, and makes a multi-picture file of one that has such a note.
    """
    kept = [data[:2]]
    for marker, begin, end in segments(data):
        if marker == SOS:
            return b"".join([*kept, data[begin - 4 :]])
        if marker in KEPT_NOTES or not 0xE0 <= marker <= 0xFE:
            kept.append(data[begin - 4 : end])
    return data


def is_buffered(marker: int, components: int, in_first_scan: int) -> bool:
    """True if the image takes several scans: libjpeg then keeps all coefficients and reads every scan there is."""
    return marker in PROGRESSIVE or in_first_scan < components


def check_scans(data: Data, scan: int, height: int, width: int, limits: Limits = LIMITS) -> None:
    """Raises TooMuchWork if the scans of a buffered JPEG, or what decoding them takes, are over the limits.

    scan: offset of the first scan's marker. Counting stops one above the limit.
    """
    scans = 0
    for count, (marker, _, _) in enumerate(segments(data, scan), 1):
        limits.check_parts(count, "segments")
        scans += marker == SOS
        if scans > limits.scans:
            break
    limits.check_scans(scans, height, width, len(data))
