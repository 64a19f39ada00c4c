"""DICOM images: one uncompressed frame, grey by its window, or RGB. Read by pydicom, the extra `dicom`.

Only the header is given to pydicom, and a bounded part of the file for it: it reads part by part in Python. Its
transfer syntax is looked up before, as pydicom would inflate a deflated file of any size.
"""

from __future__ import annotations

import io
import struct
from typing import Any, NamedTuple

import numpy as np

from resnet.images import pnm
from resnet.images.checks import image_kinds
from resnet.images.checks.image_limits import CorruptImage, Limits, RefusedKind
from resnet.images.grey_range import GreyRange

MISSING = "a DICOM image needs pydicom, which is not installed: the extra dicom of this package has it"
HEADER = 2**20  # bytes in which the pixels must begin
META = 64  # elements of the file meta group; it has some ten
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"  # transfer syntaxes: uncompressed, little endian
PIXELS = b"\xe0\x7f\x10\x00"
LONG = (b"OB", b"OW")  # value representations of pixels, whose length has four bytes behind two empty ones
ENCAPSULATED = 0xFFFFFFFF
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
GREY = ("MONOCHROME1", "MONOCHROME2")
TAGS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RescaleIntercept",
    "RescaleSlope",
)


class GreyWindow(NamedTuple):
    """The levels that a reader of the image is shown, in rescaled units. function: one of FUNCTIONS (PS3.3 C.11.2)."""

    center: float
    width: float
    function: str

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Rescaled values -> uint8: black below the window, white above."""
        center, width = self.center, self.width
        if self.function == "SIGMOID":
            shares = 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
        else:
            if self.function == "LINEAR":
                center, width = center - 0.5, width - 1
            below, above = values <= center - width / 2, values > center + width / 2
            shares = np.where(below, 0.0, np.where(above, 1.0, (values - center) / (width or 1.0) + 0.5))
        return np.rint(255 * shares).astype(np.uint8)


class DicomHeader(NamedTuple):
    """An image's header. allocated, stored: bits of a sample; high: its highest bit; signed: levels may be negative;
    inverted: the lowest level is white; planar: a plane for each colour; begin: first byte of the pixels."""

    height: int
    width: int
    samples: int
    planar: bool
    allocated: int
    stored: int
    high: int
    signed: bool
    inverted: bool
    slope: float
    intercept: float
    window: GreyWindow | None
    begin: int

    @property
    def is_deep(self) -> bool:
        """True if a range of grey levels decides its picture: more than 8 bits, and no window."""
        return self.samples == 1 and self.stored > 8 and self.window is None


def read_dicom_header(data: bytes, limits: Limits) -> DicomHeader:
    """Raises RefusedKind for what is not decoded and where pydicom is missing, TooLarge, or CorruptImage."""
    try:
        return _header(data, limits)
    except struct.error:
        raise CorruptImage("a DICOM image must have a readable header, this one's is cut short") from None


def _header(data: bytes, limits: Limits) -> DicomHeader:
    syntax = _transfer_syntax(data)
    if not syntax:
        raise CorruptImage("a DICOM image must have a transfer syntax, this one has none")
    if syntax not in (IMPLICIT, EXPLICIT):
        raise image_kinds.refuse("DICOM", "compressed, or big endian")
    found, at = _read(data)
    begin = _begin(data, at)
    height, width = (_whole(found, name, 0, 2**16) for name in ("Rows", "Columns"))
    if not height or not width:
        raise CorruptImage("a DICOM image must have rows and columns, this one has none")
    limits.check_pixels(height, width)
    if _whole(found, "NumberOfFrames", 1, 2**31) > 1:
        raise image_kinds.refuse("DICOM", "several frames")
    photometric, samples = str(found.get("PhotometricInterpretation", "")), _whole(found, "SamplesPerPixel", 1, 4)
    if (samples, photometric) not in (*((1, grey) for grey in GREY), (3, "RGB")):
        raise image_kinds.refuse("DICOM", "palette, YBR or other colours")
    allocated = _whole(found, "BitsAllocated", 0, 64)
    stored = _whole(found, "BitsStored", allocated, 64)
    if allocated not in (8, 16) or (samples == 3 and (allocated, stored) != (8, 8)):
        raise image_kinds.refuse("DICOM", "1 bit, more than 16 bits, or colour of more than 8")
    high = _whole(found, "HighBit", stored - 1, 64)
    if not 1 <= stored <= high + 1 <= allocated:
        raise CorruptImage(f"a DICOM image must store its bits in those allocated, got {stored} up to {high}")
    signed = _whole(found, "PixelRepresentation", 0, 1) == 1
    slope, intercept = _number(found, "RescaleSlope", 1.0), _number(found, "RescaleIntercept", 0.0)
    window = _window(found) if samples == 1 else None
    planar, inverted = _whole(found, "PlanarConfiguration", 0, 1) == 1, photometric == GREY[0]
    return DicomHeader(
        height, width, samples, planar, allocated, stored, high, signed, inverted, slope, intercept, window, begin
    )


def decode_dicom(data: bytes, grey_range: GreyRange | None, limits: Limits) -> np.ndarray:
    """(H, W, 3) uint8: by the window that the file has; without one by the range of grey levels.

    Raises as read_dicom_header.
    """
    header = read_dicom_header(data, limits)
    levels = _levels(data, header)
    if header.samples == 3:
        return levels
    most = 2**header.stored - 1
    if header.window is not None:
        units = (np.arange(most + 1) - (2 ** (header.stored - 1) if header.signed else 0)) * header.slope
        grey = header.window.apply(units + header.intercept)[levels]
    elif header.is_deep:
        grey = (grey_range or GreyRange(0, most)).apply(levels)
    else:
        grey = pnm.scaled(levels, most)
    grey = 255 - grey if header.inverted else grey
    return np.repeat(grey[..., None], 3, axis=2)


def dicom_levels(data: bytes, limits: Limits) -> np.ndarray | None:
    """The stored levels, (H, W) of 0 to 65535, where a range of them decides the picture; else None."""
    header = read_dicom_header(data, limits)
    return _levels(data, header) if header.is_deep else None


def _transfer_syntax(data: bytes) -> str:
    """From the file meta group, which is always explicit and little endian; empty if it has none."""
    at = 132
    for _ in range(META):
        group, element, kind, length = struct.unpack_from("<HH2sH", data, at)
        at += 8
        if group != 2:
            return ""
        if kind in (b"OB", b"UN", b"UT"):
            (length,) = struct.unpack_from("<I", data, at)
            at += 4
        if element == 0x10:
            return data[at : at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at += length
    return ""


def _read(data: bytes) -> tuple[dict[str, Any], int]:
    """The values of the tags above that there are, and the place of the pixels' element, or the end of the header."""
    try:
        from pydicom import config, dcmread  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise RefusedKind(MISSING) from None
    config.settings.reading_validation_mode = config.IGNORE  # values are checked here, not warned of
    stream = io.BytesIO(data[:HEADER])
    try:
        found = dcmread(stream, stop_before_pixels=True, specific_tags=list(TAGS))
        return {name: found.get(name) for name in TAGS if found.get(name) is not None}, stream.tell()
    except MemoryError:
        raise
    except Exception as error:  # hostile bytes bring nearly any class
        raise CorruptImage(f"a DICOM image must have a readable header, this one's is not: {error}") from None


def _begin(data: bytes, at: int) -> int:
    """The first byte of the pixels, from the place of their element."""
    if data[at : at + 4] != PIXELS:
        raise CorruptImage(f"a DICOM image must have its pixels in its first {HEADER:,} bytes, this one has none there")
    if data[at + 4 : at + 6] in LONG:
        begin, (length,) = at + 12, struct.unpack_from("<I", data, at + 8)
    else:
        begin, (length,) = at + 8, struct.unpack_from("<I", data, at + 4)
    if length == ENCAPSULATED:
        raise image_kinds.refuse("DICOM", "compressed, or big endian")
    return begin


def _whole(found: dict[str, Any], name: str, usual: int, most: int) -> int:
    """A whole number of the header. CorruptImage: it is none, or out of range."""
    try:
        value = int(found.get(name, usual))
    except (TypeError, ValueError):
        value = -1
    if not 0 <= value <= most:
        raise CorruptImage(f"a DICOM image must have a {name} of 0 to {most}, got {str(found.get(name))[:40]}")
    return value


def _number(found: dict[str, Any], name: str, usual: float) -> float:
    """A number of the header, the first of several. CorruptImage: it is none."""
    value = found.get(name, usual)
    try:
        number = float(value if isinstance(value, str | int | float) else value[0])
    except (TypeError, ValueError, LookupError):
        number = np.nan
    if not np.isfinite(number):
        raise CorruptImage(f"a DICOM image must have a finite {name}, got {str(value)[:40]}")
    return number


def _window(found: dict[str, Any]) -> GreyWindow | None:
    """The first window; None: the file has none."""
    if "WindowCenter" not in found or "WindowWidth" not in found:
        return None
    center, width = _number(found, "WindowCenter", 0.0), _number(found, "WindowWidth", 0.0)
    function = str(found.get("VOILUTFunction", FUNCTIONS[0])).upper()
    if function not in FUNCTIONS:
        raise CorruptImage(f"a DICOM window must be one of {', '.join(FUNCTIONS)}, got {function[:40]}")
    if width < 1 if function == "LINEAR" else width <= 0:
        raise CorruptImage(f"a DICOM window must have a width of at least 1, got {width:g}")
    return GreyWindow(center, width, function)


def _levels(data: bytes, header: DicomHeader) -> np.ndarray:
    """(H, W) or (H, W, 3) stored levels, uint8 or uint16; the lowest of signed ones is 0. CorruptImage: cut short."""
    count, kind = header.height * header.width * header.samples, np.dtype(np.uint8 if header.allocated == 8 else "<u2")
    if len(data) < header.begin + count * kind.itemsize:
        size = f"{header.width} x {header.height}"
        raise CorruptImage(f"a DICOM image must be complete, got {size}: its pixels are truncated")
    flat = np.frombuffer(data, kind, count, header.begin)
    flat = (flat >> kind.type(header.high + 1 - header.stored)) & kind.type(2**header.stored - 1)
    if header.signed:
        flat ^= kind.type(2 ** (header.stored - 1))  # of two's complement: moves the lowest to 0
    if header.samples == 1:
        return flat.reshape(header.height, header.width)
    if header.planar:
        return np.ascontiguousarray(flat.reshape(3, header.height, header.width).transpose(1, 2, 0))
    return flat.reshape(header.height, header.width, 3)
