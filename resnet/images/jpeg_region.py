"""The region of a JPEG that a crop needs, decoded and resized: the hot loop of training input; and evaluation's resize.

A JPEG is decoded from its first row on, so rows above a region cost their Huffman codes, and rows below it nothing.
Three engines give the same picture, to within a fifth of a grey level on average (speeds: docs/decisions/images.md):

    libjpeg  our jpeg_region.c with the system's libjpeg-turbo: only the region's rows and columns are transformed
    c        simplejpeg decodes whole rows down to the region's last one; jpeg_region.c resizes
    wheels   simplejpeg as above; torch resizes (Pillow where the box has fractions). Needs no compiler

jpeg_region.c is compiled on first use, once a machine, if a C compiler is there. `best()` chooses, `best().name` says
which.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import numpy as np
import simplejpeg

from resnet.images.jpeg_header import Data, JpegHeader
from resnet.images.native_library import loaded_library

ENGINES = ("libjpeg", "c", "wheels")
SCALES = (8, 4, 2)  # a JPEG can be shrunk by these while decoding, in the frequency domain
SPARE = 68  # jpeg_region.c: columns of a region that may come on top of those asked for

Box = tuple[float, float, float, float]
"""(top, left, height, width) in pixels of the stored image."""

"""A file's bytes; a view of memory that somebody else holds is decoded where it lies."""


class Undecodable(ValueError):
    """The fast way cannot decode these bytes; Pillow decides what they are."""


class Cut(NamedTuple):
    """A crop that is drawn and not yet made. bleed: the filter may reach pixels outside the box.

    bleed is right where the box is a crop of a resized image, wrong where the crop comes first. mirrored: turned left
    to right.
    """

    data: Data
    header: JpegHeader
    box: Box
    bleed: bool = False
    mirrored: bool = False


class Window(NamedTuple):
    """The region of a JPEG shrunk by scale that is decoded for a cut, and the cut's box within it."""

    scale: int
    top: int
    left: int
    height: int
    width: int
    box: Box


@dataclass(frozen=True, slots=True)
class JpegEngine:
    """decode(data, header, scale, top, left, height, width) -> pixels, in the JPEG shrunk by scale; a fourth channel
    may follow. resize(pixels, box, height, width, out, mirrored) -> (height, width, 3), antialiased bilinear; into out,
    which is contiguous, or a new array. library: the C library that does both for several at once, or None.
    resize_window(pixels, tall, wide, top, left, height, width) -> (height, width, 3): that part of the whole resized to
    (tall, wide), Pillow's BILINEAR bit for bit."""

    name: str
    decode: Callable[[Data, JpegHeader, int, int, int, int, int], np.ndarray]
    resize: Callable[..., np.ndarray]
    resize_window: Callable[[np.ndarray, int, int, int, int, int, int], np.ndarray]
    library: ctypes.CDLL | None = None


def crop_and_resize(cut: Cut, size: int, engine: JpegEngine, out: np.ndarray | None = None) -> np.ndarray:
    """(size, size, 3) uint8: the box of a JPEG, resized. out: where to, or a new array. Undecodable if it is."""
    window = _window(cut, size)
    pixels = engine.decode(cut.data, cut.header, *window[:5])
    return engine.resize(pixels, window.box, size, size, out, cut.mirrored)


def crop_and_resize_all(cuts: Sequence[Cut], size: int, engine: JpegEngine, outs: Sequence[np.ndarray]) -> list[int]:
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


def _made(cut: Cut, size: int, engine: JpegEngine, out: np.ndarray) -> bool:
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
    """Crop of jpeg_region.c."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("data", "target")),
        ("size", ctypes.c_long),
        *((name, ctypes.c_double) for name in ("top", "left", "tall", "wide")),
        *((name, ctypes.c_int) for name in ("scale", "x", "y", "w", "h", "mirrored", "failed")),
    )


# --- Engines ----------------------------------------------------------------------------------------------------------


@cache
def best() -> JpegEngine:
    """The fastest engine of this machine. The first call may compile for a second."""
    return next(found for name in ENGINES if (found := engine(name)))


@cache
def engine(name: str) -> JpegEngine | None:
    """An engine by name. None where this machine lacks its compiler or library."""
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "wheels":
        return JpegEngine(name, partial(_decode_rows, "RGBX"), _resize_wheels, _resize_window_pillow)
    library = loaded_library(name)
    if library is None:
        return None
    resizes = partial(_resize_c, library), partial(_resize_window_c, library)
    if name == "libjpeg":
        return JpegEngine(name, partial(_decode_region, library), *resizes, library)
    return JpegEngine(name, partial(_decode_rows, "RGB"), *resizes)


def _decode_rows(
    colors: str, data: Data, header: JpegHeader, scale: int, top: int, left: int, height: int, width: int
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
    library: ctypes.CDLL, data: Data, header: JpegHeader, scale: int, top: int, left: int, height: int, width: int
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
