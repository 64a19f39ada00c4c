"""Checks of a file's own structure, before Pillow is given it: its pixels, parts and variant. Nothing is decoded.

Pillow reads what comes before the pixels in Python, part by part: 16.8 MB of empty segments of a JPEG take it 5.0 s, of
one-byte comments of a GIF 1.8 s and 700 MiB, 8 MB of 1 x 1 tiles of a TIFF 11 s (Pillow 13). Damage is no business of
these checks: what cannot be followed is left to the decoder to refuse.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from resnet.images import dicom, pnm
from resnet.images.checks import image_kinds, jpeg_scans
from resnet.images.checks.image_limits import LIMITS, CorruptImage, Limits, TooMuchWork

Check = Callable[[bytes, Limits], None]

RLE = {1, 2}  # compression of a BMP: run-length encoded, 8 and 4 bits
WIDTH, HEIGHT, STRIPS, ORIENTATION, TILES = 256, 257, 273, 274, 324  # tags of a TIFF
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
ICO_ENTRIES = 256


def check_header(data: bytes, limits: Limits = LIMITS) -> image_kinds.Kind:
    """The kind of a file that may be decoded.

    Raises RefusedKind, TooLarge or TooMuchWork for what must not be, CorruptImage for what is no image.
    """
    limits.check_bytes(len(data))
    kind = image_kinds.kind_of(data)
    with suppress(struct.error, IndexError):  # cut short: the decoder says so
        CHECKS.get(kind.name, _nothing)(data, limits)
    return kind


def _nothing(data: bytes, limits: Limits) -> None:
    """AVIF is parsed by libavif, in C."""


def _jpeg(data: bytes, limits: Limits) -> None:
    frame = jpeg_scans.read_frame(data, limits)
    if frame is None:
        raise CorruptImage("an image must have a readable header, this JPEG has no frame or no scan")
    if frame.marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise image_kinds.refuse("JPEG", "lossless or hierarchical")
    if frame.precision == 12:
        raise image_kinds.refuse("JPEG", "12 bits a sample")
    if frame.components == 2:
        raise image_kinds.refuse("JPEG", "two components")
    limits.check_pixels(frame.height, frame.width)
    if frame.buffered:
        jpeg_scans.check_scans(data, frame.scan, frame.height, frame.width, limits)


def _png(data: bytes, limits: Limits) -> None:
    width, height = struct.unpack_from(">II", data, 16)
    limits.check_pixels(height, width)
    at, count = 8, 0
    while at + 8 <= len(data):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        count += 1
        if count > limits.parts:
            limits.check_parts(count, "chunks")


def _gif(data: bytes, limits: Limits) -> None:
    """Blocks before the first image."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    limits.check_pixels(height, width)
    at, count = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0), 0
    while data[at] != 0x2C:  # an image
        at += 1
        if data[at - 1] == 0x21:  # an extension: its label, and blocks up to an empty one
            at += 1
            while data[at]:
                at, count = at + 1 + data[at], count + 1
                limits.check_parts(count, "blocks before its first image")
            at += 1
        count += 1
        limits.check_parts(count, "blocks before its first image")


def _webp(data: bytes, limits: Limits) -> None:
    if data[12:16] == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    limits.check_pixels(height, width)


def _bmp(data: bytes, limits: Limits) -> None:
    _dib(data, 14, limits)


def _dib(data: bytes, at: int, limits: Limits) -> None:
    """The header of a BMP, or of an image in an ICO, whose height counts its mask too."""
    (size,) = struct.unpack_from("<I", data, at)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, at + 4)
    else:
        width, height, _, _, compression = struct.unpack_from("<iiHHI", data, at + 4)
        if compression in RLE:
            raise image_kinds.refuse("BMP", "run-length encoded")
    limits.check_pixels(abs(height), abs(width))


def _ico(data: bytes, limits: Limits) -> None:
    (count,) = struct.unpack_from("<H", data, 4)
    if count > ICO_ENTRIES:
        raise TooMuchWork(f"an ICO must have at most {ICO_ENTRIES} images, got {count:,}")
    for at in range(6, 6 + 16 * count, 16):
        (start,) = struct.unpack_from("<I", data, at + 12)
        if data[start : start + 8] == b"\x89PNG\r\n\x1a\n":
            _png(data[start:], limits)
        else:
            _dib(data, start, limits)


def _tiff(data: bytes, limits: Limits) -> None:
    """The first directory: its size, its number of strips or tiles, and the bytes that its tags say they have."""
    tags = dict(tiff_tags(data))
    width, height = (_short(data, tags, tag) for tag in (WIDTH, HEIGHT))
    if width and height:
        limits.check_pixels(height, width)
    for tag in (STRIPS, TILES):
        limits.check_parts(tags[tag][1] if tag in tags else 0, "strips or tiles")
    claimed = sum(TIFF_SIZES.get(kind, 0) * count for kind, count, _ in tags.values())
    if claimed > 2 * len(data) + 2**16:
        raise TooMuchWork(f"a TIFF must have tags of at most its {len(data):,} bytes, they claim {claimed:,}")


def tiff_orientation(data: bytes) -> int:
    """Orientation, 1 to 8, of a TIFF's first page; Pillow applies it while it decodes."""
    try:
        value = _short(data, dict(tiff_tags(data)), ORIENTATION)
    except struct.error:
        return 1
    return value if 1 <= value <= 8 else 1


def tiff_tags(data: bytes) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """(tag, (type, count, offset of the value or of its offset)) of the first directory."""
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, start)
    first, size, form = (start + 8, 20, f"{order}HHQ") if big else (start + 2, 12, f"{order}HHI")
    for at in range(first, min(first + count * size, len(data) - size + 1), size):
        tag, kind, values = struct.unpack_from(form, data, at)
        yield tag, (kind, values, at + struct.calcsize(form))


def _short(data: bytes, tags: dict[int, tuple[int, int, int]], tag: int) -> int:
    """The value of a tag of one number; 0 if there is none."""
    kind, _, at = tags.get(tag, (0, 0, 0))
    form = {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind)
    return struct.unpack_from(("<" if data[:2] == b"II" else ">") + form, data, at)[0] if form else 0


def _pnm(data: bytes, limits: Limits) -> None:
    header = pnm.read_pnm_header(data)
    limits.check_pixels(header.height, header.width)


def _dicom(data: bytes, limits: Limits) -> None:
    dicom.read_dicom_header(data, limits)


def _jpeg2000(data: bytes, limits: Limits) -> None:
    """Boxes of a JP2, also those inside its header box; markers of a bare code stream before its first tile."""
    if data[:4] == b"\xff\x4f\xff\x51":
        right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
        limits.check_pixels(bottom - top, right - left)
        at, end, step = 2, len(data), 2
    else:
        at, end, step = 0, len(data), 8
    count = 0
    while at + step <= end:
        count += 1
        limits.check_parts(count, "boxes")
        if step == 2:
            marker, length = struct.unpack_from(">HH", data, at)
            if marker == 0xFF90:  # a tile
                return
            at += 2 + length
            continue
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"ihdr":
            limits.check_pixels(*struct.unpack_from(">II", data, at + 8))
        if name == b"jp2c":
            return
        header = 16 if length == 1 else 8
        length = struct.unpack_from(">Q", data, at + 8)[0] if length == 1 else length
        at += header if name == b"jp2h" else max(length, header) if length else end


CHECKS: dict[str, Check] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WebP": _webp,
    "BMP": _bmp,
    "ICO": _ico,
    "TIFF": _tiff,
    "PNM": _pnm,
    "JPEG 2000": _jpeg2000,
    "DICOM": _dicom,
}
