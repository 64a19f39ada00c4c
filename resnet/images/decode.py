"""Bytes of an image file of any kind -> (H, W, 3) uint8 pixels, RGB, upright. What is no picture is one error.

Which kinds are decoded, and how, is the table of resnet/images/checks/image_kinds.py; the limits are those of
resnet/images/checks/image_limits.py. Both are asked before anything is decoded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import simplejpeg

from resnet.images import dicom, image_orientation, jpeg_header, jpeg_region, pnm
from resnet.images.checks import image_headers, image_kinds, jpeg_scans
from resnet.images.checks.image_limits import LIMITS, CorruptImage, Limits, TooLarge
from resnet.images.grey_range import GreyRange

if TYPE_CHECKING:
    from PIL import Image


MAX_PIXELS = LIMITS.pixels
Made = TypeVar("Made")


class Decoded(NamedTuple):
    """pixels: (H, W, 3) uint8; orientation: EXIF's, 1 to 8."""

    pixels: np.ndarray
    orientation: int


def decode(
    data: jpeg_header.Data, grey_range: GreyRange | None = None, limits: Limits = LIMITS, *, as_stored: bool = False
) -> np.ndarray:
    """Bytes of an image file -> (H, W, 3) uint8 RGB, equal to Pillow's.

    grey_range: of levels that becomes 0 to 255, for grey images of more than 8 bits. None: all levels of the type.
    as_stored: leave out the EXIF orientation, for boxes in coordinates of a JPEG.
    Raises RefusedKind, TooLarge or TooMuchWork before decoding, CorruptImage if there is no picture.
    """
    stored = _decode_stored(data, grey_range, limits)
    return stored.pixels if as_stored else image_orientation.upright(*stored)


def decode_noting(data: jpeg_header.Data, grey_range: GreyRange | None = None, limits: Limits = LIMITS) -> Decoded:
    """As decode, with the orientation that was applied."""
    pixels, orientation = _decode_stored(data, grey_range, limits)
    if data[:2] in (b"II", b"MM"):  # a TIFF
        orientation = image_headers.tiff_orientation(bytes(data))
        return Decoded(pixels, orientation)
    return Decoded(image_orientation.upright(pixels, orientation), orientation)


def _decode_stored(data: jpeg_header.Data, grey_range: GreyRange | None, limits: Limits) -> Decoded:
    """Pixels as stored, and the orientation that is to be applied. TIFF's are upright: Pillow turns them itself."""
    data = bytes(data)  # a copy of what is none yet: Pillow's readers keep it
    header = jpeg_header.read_jpeg_header(data, limits)
    if header is not None:
        limits.check_bytes(len(data))
        with suppress(ValueError):  # Pillow says what is wrong
            # as libjpeg does for Pillow: its warnings are no errors
            return Decoded(simplejpeg.decode_jpeg(data, strict=False), header.orientation)
    kind = image_headers.check_header(data, limits)
    if kind.name == "PNM":
        return Decoded(_decode_pnm(data, grey_range, limits), 1)
    if kind.name == "DICOM":
        return Decoded(dicom.decode_dicom(data, grey_range, limits), 1)
    image = _opened(data, kind, limits)
    pixels = _loaded(image, lambda: _to_rgb(image, grey_range))
    if kind.name == "JPEG":
        frame = jpeg_scans.read_frame(data, limits)
        return Decoded(pixels, frame.orientation if frame else 1)
    return Decoded(pixels, 1 if kind.name == "TIFF" else _noted_orientation(image))


def decode_reduced(data: bytes, shorter_side: int, limits: Limits = LIMITS) -> np.ndarray:
    """A JPEG of more than limits.pixels -> upright pixels of at least this shorter side.

    It is shrunk by 2, 4 or 8 while it is decoded, so that memory is that of the result and a band of rows.
    Raises TooLarge if it is over the limits for reduced images too, or no such JPEG; CorruptImage if it is damaged.
    """
    limits.check_bytes(len(data))
    kind = image_kinds.kind_of(data)
    frame = jpeg_scans.read_frame(data, limits) if kind.name == "JPEG" else None
    if frame is None or frame.precision != 8 or frame.components not in (1, 3):
        raise TooLarge(
            f"an image of more than {limits.pixels:,} pixels must be a JPEG of 8 bits, grey or of three colours, to be "
            f"scaled down while it is decoded; got {kind.name}"
        )
    most = limits.reduced_buffered_pixels if frame.buffered else limits.reduced_pixels
    if frame.height * frame.width > most:
        what = "JPEG of several scans" if frame.buffered else "JPEG"
        raise TooLarge(
            f"a {what} must have at most {most:,} pixels to be scaled down, got {frame.width} x {frame.height}"
        )
    if frame.buffered:
        jpeg_scans.check_scans(data, frame.scan, frame.height, frame.width, limits)
    scale = max((s for s in jpeg_region.SCALES if min(frame.height, frame.width) >= s * shorter_side), default=1)
    tall, wide = -(-frame.height // scale), -(-frame.width // scale)
    limits.check_pixels(tall, wide)
    try:
        image = simplejpeg.decode_jpeg(data, "RGB", min_height=tall, min_width=wide, strict=False)
    except ValueError as error:
        raise CorruptImage(f"an image must be complete, got JPEG, {frame.width} x {frame.height}: {error}") from None
    return image_orientation.upright(image, frame.orientation)


def grey_levels(data: bytes, limits: Limits = LIMITS) -> np.ndarray | None:
    """Levels of a grey image of more than 8 bits, (H, W) of 0 to 65535, as stored; None of any other image.

    Raises as decode.
    """
    kind = image_headers.check_header(data, limits)
    if kind.name == "PNM":
        levels, maximum = pnm.levels(data, limits)
        return levels if maximum > 255 and levels.ndim == 2 else None
    if kind.name == "DICOM":
        return dicom.dicom_levels(data, limits)
    image = _opened(data, kind, limits)
    if not image.mode.startswith("I"):
        return None
    return _loaded(image, lambda: _deep(image))


def size_of(data: bytes, limits: Limits = LIMITS) -> tuple[int, int]:
    """(height, width) as stored, from the header alone. Raises as decode, but for damage behind the header."""
    header = jpeg_header.read_jpeg_header(data, limits)
    if header is not None:
        limits.check_bytes(len(data))
        return header.height, header.width
    kind = image_headers.check_header(data, limits)
    if kind.name == "JPEG" and (frame := jpeg_scans.read_frame(data, limits)) is not None:
        return frame.height, frame.width
    if kind.name == "PNM":
        found = pnm.read_pnm_header(data)
        return found.height, found.width
    if kind.name == "DICOM":
        header = dicom.read_dicom_header(data, limits)
        return header.height, header.width
    width, height = _opened(data, kind, limits).size
    return height, width


def open_by_pillow(data: bytes, limits: Limits = LIMITS) -> Image.Image:
    """Pillow's image, its pixels not yet read. Raises as decode."""
    return _opened(data, image_headers.check_header(data, limits), limits)


def _opened(data: bytes, kind: image_kinds.Kind, limits: Limits) -> Image.Image:
    """Pillow's image of a file that was checked."""
    from PIL import Image

    data = jpeg_scans.without_notes(data) if kind.name == "JPEG" else data
    try:
        image = Image.open(io.BytesIO(data), formats=[str(kind.reader)])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\d+", str(error))  # Pillow tells its own limit, which is not ours
        many = f"{int(found[0]):,}" if found else "more"
        raise TooLarge(f"an image must have at most {limits.pixels:,} pixels, got {many}") from None
    except Image.UnidentifiedImageError:
        raise CorruptImage(f"an image must have a readable header, that of this {kind.name} is damaged") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly any class on hostile bytes
        raise CorruptImage(f"an image must have a readable header, that of this {kind.name} is not: {error}") from None
    limits.check_pixels(image.height, image.width)
    return image


def _decode_pnm(data: bytes, grey_range: GreyRange | None, limits: Limits) -> np.ndarray:
    levels, maximum = pnm.levels(data, limits)
    if maximum > 255 and levels.ndim == 2:
        levels = (grey_range or GreyRange(0, maximum)).apply(levels)
    else:
        levels = pnm.scaled(levels, maximum)
    return levels if levels.ndim == 3 else np.repeat(levels[..., None], 3, axis=2)


def _loaded(image: Image.Image, function: Callable[[], Made]) -> Made:
    """The result of a function of Pillow's image, whose pixels it reads. Raises CorruptImage if they are damaged."""
    try:
        return function()
    except (CorruptImage, MemoryError):
        raise
    except Exception as error:  # as in open_by_pillow
        what = f"{image.format}, {image.width} x {image.height}"
        raise CorruptImage(f"an image must be complete, got {what}: {error}") from None


def _to_rgb(image: Image.Image, grey_range: GreyRange | None) -> np.ndarray:
    """Pillow's image of any mode -> (H, W, 3) uint8. Raises CorruptImage for pixels that are no colours."""
    from PIL import Image

    if image.mode == "F":
        raise image_kinds.refuse("TIFF", "32-bit floats")
    if image.mode.startswith("I"):  # 16-bit grayscale: Pillow's own conversion would clip at 255
        return np.repeat((grey_range or GreyRange()).apply(_deep(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))  # a copy: Pillow's own memory is read-only


def _deep(image: Image.Image) -> np.ndarray:
    """Levels of a grey image of 16 bits, or of 32 that has no higher ones. Raises RefusedKind if it has."""
    levels = np.asarray(image)
    if levels.dtype.itemsize > 2 and (levels.min() < 0 or levels.max() > 0xFFFF):
        raise image_kinds.refuse("TIFF", "32-bit integers")
    return levels


def _noted_orientation(image: Image.Image) -> int:
    """EXIF orientation of a loaded PNG, WebP or AVIF: their readers have found the note, but do not apply it."""
    note = image.info.get("exif")
    if not note and "Raw profile type exif" in image.info:  # ImageMagick's PNG: a name, a length, hexadecimal digits
        try:
            note = bytes.fromhex("".join(str(image.info["Raw profile type exif"]).split("\n")[3:]))
        except ValueError:
            return 1
    return image_orientation.of_exif(note) if isinstance(note, bytes) else 1
