"""The region of a JPEG that a crop needs, decoded and resized: the hot loop of training input; and evaluation's resize.

A JPEG is decoded from its first row on, so rows above a region cost their Huffman codes, and rows below it nothing.
Three engines give the same picture, to within a fifth of a grey level on average (speeds: docs/decisions/images.md):

    libjpeg  our region.c with the system's libjpeg-turbo: only the region's rows and columns are transformed
    c        simplejpeg decodes whole rows down to the region's last one; region.c resizes
    wheels   simplejpeg as above; torch resizes (Pillow where the box has fractions). Needs no compiler

region.c is compiled on first use, once a machine, if a C compiler is there. `best()` chooses, `best().name` says which.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg

from resnet import image_orientation, jpeg_scans
from resnet.image_limits import LIMITS, Limits, TooMuchWork

SOURCE = Path(__file__).with_name("region.c")
ENGINES = ("libjpeg", "c", "wheels")
# What each engine's library is compiled with: before the source, and after it.
FLAGS = {"libjpeg": (("-DREGION",), ("-lm", "-ljpeg")), "c": ((), ("-lm",))}
SCALES = (8, 4, 2)  # a JPEG can be shrunk by these while decoding, in the frequency domain
SPARE = 68  # region.c: columns of a region that may come on top of those asked for
END = b"\xff\xd9"  # marker of a JPEG's end
HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
MAX_PIXELS = LIMITS.pixels

Box = tuple[float, float, float, float]
"""(top, left, height, width) in pixels of the stored image."""

Data = bytes | memoryview
"""A file's bytes; a view of memory that somebody else holds is decoded where it lies."""


class Undecodable(ValueError):
    """The fast way cannot decode these bytes; Pillow decides what they are."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a region decode must know of a JPEG, as stored.

    frame: offset of its frame header; sampling: rows a colour is for; orientation: EXIF's, not applied here.
    """

    height: int
    width: int
    frame: int
    sampling: int
    orientation: int = 1


class Cut(NamedTuple):
    """A crop that is drawn and not yet made. bleed: the filter may reach pixels outside the box.

    bleed is right where the box is a crop of a resized image, wrong where the crop comes first. mirrored: turned left
    to right.
    """

    data: Data
    header: Header
    box: Box
    bleed: bool = False
    mirrored: bool = False


class Window(NamedTuple):
    """What of a JPEG shrunk by scale is decoded for a cut, and the cut's box within it."""

    scale: int
    top: int
    left: int
    height: int
    width: int
    box: Box


@dataclass(frozen=True, slots=True)
class Engine:
    """decode(data, header, scale, top, left, height, width) -> pixels, in the JPEG shrunk by scale; a fourth channel
    may follow. resize(pixels, box, height, width, out, mirrored) -> (height, width, 3), antialiased bilinear; into out,
    which is contiguous, or a new array. library: the C library that does both for several at once, or None.
    resize_window(pixels, tall, wide, top, left, height, width) -> (height, width, 3): that part of the whole resized to
    (tall, wide), Pillow's BILINEAR bit for bit."""

    name: str
    decode: Callable[[Data, Header, int, int, int, int, int], np.ndarray]
    resize: Callable[..., np.ndarray]
    resize_window: Callable[[np.ndarray, int, int, int, int, int, int], np.ndarray]
    library: ctypes.CDLL | None = None


def read_header(data: Data, limits: Limits = LIMITS) -> Header | None:
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


def _header(data: Data, frame: int, scan: int, orientation: int, limits: Limits) -> Header | None:
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
    return Header(height, width, frame, max(sampling), orientation)


def crop_and_resize(cut: Cut, size: int, engine: Engine, out: np.ndarray | None = None) -> np.ndarray:
    """(size, size, 3) uint8: the box of a JPEG, resized. out: where to, or a new array. Undecodable if it is."""
    window = _window(cut, size)
    pixels = engine.decode(cut.data, cut.header, *window[:5])
    return engine.resize(pixels, window.box, size, size, out, cut.mirrored)


def crop_and_resize_all(cuts: Sequence[Cut], size: int, engine: Engine, outs: Sequence[np.ndarray]) -> list[int]:
    """The same for several, each into its contiguous array; the places of those that are undecodable.

    One call of C where the engine can: between two calls a thread would wait for Python's lock.
    """
    if engine.library is None:
        return [i for i, (cut, out) in enumerate(zip(cuts, outs, strict=True)) if not _made(cut, size, engine, out)]
    crops = (_Crop * len(cuts))()
    for crop, cut, out in zip(crops, cuts, outs, strict=True):
        scale, top, left, height, width, box = _window(cut, size)
        place = _address(np.frombuffer(cut.data, np.uint8))
        whole = scale, left, top, width, height
        crop.__init__(place, _address(out), len(cut.data), *box, *whole, cut.mirrored)
    if not engine.library.crop_all(crops, len(cuts), size):
        return []
    return [i for i, crop in enumerate(crops) if crop.failed]


def _made(cut: Cut, size: int, engine: Engine, out: np.ndarray) -> bool:
    try:
        crop_and_resize(cut, size, engine, out)
    except Undecodable:
        return False
    return True


def _window(cut: Cut, size: int) -> Window:
    box, header = cut.box, cut.header
    scale = next((s for s in SCALES if min(box[2:]) >= 2 * s * size), 1)
    top, left, height, width = (length / scale for length in box)
    reach_y, reach_x = (max(1.0, height / size), max(1.0, width / size)) if cut.bleed else (0.0, 0.0)
    y, x = max(0, math.floor(top - reach_y)), max(0, math.floor(left - reach_x))
    bottom = min(-(-header.height // scale), math.ceil(top + height + reach_y))
    right = min(-(-header.width // scale), math.ceil(left + width + reach_x))
    return Window(scale, y, x, bottom - y, right - x, (top - y, left - x, height, width))


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]  # array.ctypes.data takes twice as long


class _Crop(ctypes.Structure):
    """Crop of region.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "target")),
        ("size", ctypes.c_long),
        *((name, ctypes.c_double) for name in ("top", "left", "tall", "wide")),
        *((name, ctypes.c_int) for name in ("scale", "x", "y", "w", "h", "mirrored", "failed")),
    )


# --- Engines ----------------------------------------------------------------------------------------------------------


@cache
def best() -> Engine:
    """The fastest engine of this machine. The first call may compile for a second."""
    return next(found for name in ENGINES if (found := engine(name)))


@cache
def engine(name: str) -> Engine | None:
    """An engine by name. None where this machine lacks its compiler or library."""
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "wheels":
        return Engine(name, partial(_decode_rows, "RGBX"), _resize_wheels, _resize_window_pillow)
    library = _library(name)
    if library is None:
        return None
    resizes = partial(_resize_c, library), partial(_resize_window_c, library)
    if name == "libjpeg":
        return Engine(name, partial(_decode_region, library), *resizes, library)
    return Engine(name, partial(_decode_rows, "RGB"), *resizes)


def _decode_rows(
    colors: str, data: Data, header: Header, scale: int, top: int, left: int, height: int, width: int
) -> np.ndarray:
    """By simplejpeg, which knows no regions: a smaller height in the header makes it stop below the region.

    The rows that share one more colour keep the interpolation of colours at the region's last row exact.
    """
    rows = min(header.height, (top + height + header.sampling) * scale)
    start = header.frame + 5
    data = b"".join((data[:start], rows.to_bytes(2, "big"), data[start + 2 :]))
    least = {"min_height": -(-rows // scale), "min_width": -(-header.width // scale)} if scale > 1 else {}
    try:
        # Not strict: bytes left over after the last row are a warning, and so is what cameras add to their files.
        pixels = simplejpeg.decode_jpeg(data, colors, strict=False, **least)
    except ValueError as error:
        raise Undecodable(str(error)) from None
    return pixels[top : top + height, left : left + width]


def _decode_region(
    library: ctypes.CDLL, data: Data, header: Header, scale: int, top: int, left: int, height: int, width: int
) -> np.ndarray:
    """By libjpeg-turbo."""
    buffer = np.empty(3 * height * (width + SPARE), np.uint8)
    got = (ctypes.c_int * 2)()
    place = _address(np.frombuffer(data, np.uint8))
    failed = library.decode_region(
        place, len(data), scale, left, top, width, height, _address(buffer), buffer.size, got
    )
    if failed:
        raise Undecodable("libjpeg cannot decode this JPEG")
    start, columns = got
    pixels = buffer[: 3 * height * columns].reshape(height, columns, 3)
    return pixels[:, left - start : left - start + width]


def _resize_c(
    library: ctypes.CDLL,
    pixels: np.ndarray,
    box: Box,
    height: int,
    width: int,
    out: np.ndarray | None = None,
    mirrored: bool = False,
) -> np.ndarray:
    if pixels.strides[1:] != (3, 1):
        pixels = np.ascontiguousarray(pixels[..., :3])
    out = np.empty((height, width, 3), np.uint8) if out is None else out
    rows, columns = pixels.shape[:2]
    failed = library.resize(
        pixels.ctypes.data, rows, columns, pixels.strides[0], *box, height, width, mirrored, out.ctypes.data
    )
    if failed:
        raise MemoryError(f"no memory to resize {rows} x {columns} pixels")
    return out


def _resize_window_c(
    library: ctypes.CDLL, pixels: np.ndarray, tall: int, wide: int, top: int, left: int, height: int, width: int
) -> np.ndarray:
    rows, columns = pixels.shape[:2]
    if rows - tall > max(0, 2 * (columns - wide)):  # Pillow 13 shrinks the rows of what is tall first, 12 did not
        return _resize_window_pillow(pixels, tall, wide, top, left, height, width)
    pixels = np.ascontiguousarray(pixels)
    out = np.empty((height, width, 3), np.uint8)
    sizes = rows, columns, 3 * columns, tall, wide, top, left, height, width
    if library.resize_window(_address(pixels), *sizes, _address(out)):
        raise MemoryError(f"no memory to resize {rows} x {columns} pixels")
    return out


def _resize_window_pillow(
    pixels: np.ndarray, tall: int, wide: int, top: int, left: int, height: int, width: int
) -> np.ndarray:
    from PIL import Image

    whole = np.asarray(Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BILINEAR))
    return np.array(whole[top : top + height, left : left + width])


def _resize_wheels(
    pixels: np.ndarray, box: Box, height: int, width: int, out: np.ndarray | None = None, mirrored: bool = False
) -> np.ndarray:
    """By torch where the box is the whole array: three times as fast as Pillow, from four channels. Else by Pillow."""
    whole = box == (0, 0, *pixels.shape[:2])
    resized = (_resize_torch if whole else _resize_pillow)(pixels, box, height, width)
    return _three(resized[:, ::-1] if mirrored else resized, out)


def _resize_torch(pixels: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    """Four channels."""
    import torch

    planes = torch.from_numpy(_four(pixels)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _resize_pillow(pixels: np.ndarray, box: Box, height: int, width: int) -> np.ndarray:
    from PIL import Image

    top, left, tall, wide = box
    rows, columns = pixels.shape[:2]
    image = Image.frombuffer("RGBX", (columns, rows), _four(pixels), "raw", "RGBX", 0, 1)
    corners = (left, top, min(left + wide, columns), min(top + tall, rows))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, corners))


def _four(pixels: np.ndarray) -> np.ndarray:
    """Contiguous pixels with a fourth channel, which is what torch and Pillow work on."""
    if pixels.shape[2] == 3:
        return np.concatenate([pixels, pixels[..., :1]], axis=2)
    return np.ascontiguousarray(pixels)


def _three(pixels: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Without the fourth channel. By channel: numpy copies pixels of three bytes five times as slowly."""
    out = np.empty((*pixels.shape[:2], 3), np.uint8) if out is None else out
    for c in range(3):
        out[..., c] = pixels[..., c]
    return out


# --- The C library ----------------------------------------------------------------------------------------------------


def _library(name: str) -> ctypes.CDLL | None:
    """region.c for an engine, compiled now or before. None: no compiler, no libjpeg-turbo, or nowhere to write."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    before, after = FLAGS[name]
    made_for = (sys.platform, platform.machine(), *before)
    key = hashlib.sha256(b"\0".join([SOURCE.read_bytes(), *(part.encode() for part in made_for)]))
    folder = _private_folder()
    if folder is None:
        return None
    path = folder / f"region-{name}-{key.hexdigest()[:16]}.so"
    library = _load(path)
    if library is None and compiler and _compile([compiler, *before], list(after), path):
        library = _load(path)
    return library


def _load(path: Path) -> ctypes.CDLL | None:
    """None where it is not there, or from a machine with another libjpeg or C library, by a shared home."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    pointer, integer, long, double = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_double
    library.resize.argtypes = [pointer, integer, integer, long, *[double] * 4, integer, integer, integer, pointer]
    library.resize_window.argtypes = [pointer, integer, integer, long, *[integer] * 6, pointer]
    if hasattr(library, "decode_region"):
        region = [integer] * 5
        library.decode_region.argtypes = [pointer, long, *region, pointer, long, ctypes.POINTER(integer)]
        library.crop_all.argtypes = [pointer, integer, integer]
    return library


def _compile(command: list[str], libraries: list[str], path: Path) -> bool:
    """Several processes may compile at once: each renames a file of its own into place."""
    descriptor, made = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(descriptor)
    try:
        options = ["-std=gnu11", "-O3", "-shared", "-fPIC", "-o", made, str(SOURCE), *libraries]
        done = subprocess.run([*command, *options], capture_output=True, timeout=120, check=False)
        if done.returncode == 0:
            os.replace(made, path)
        return done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        Path(made).unlink(missing_ok=True)


def _private_folder() -> Path | None:
    """$RESNET_HOME/cache or ~/resnet/cache, else one in the temporary folder; only where no other user can write."""
    home = Path(os.environ.get("RESNET_HOME") or "~/resnet").expanduser()
    if not hasattr(os, "getuid"):
        return None
    for folder in (home / "cache", Path(tempfile.gettempdir()) / f"resnet-cache-{os.getuid()}"):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        except OSError:
            continue
        # A library that somebody else may replace is never loaded.
        if status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    return None
