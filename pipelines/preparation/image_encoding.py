"""An image at the door: decoded once, looked at, and kept as it is or re-encoded smaller."""

from __future__ import annotations

import io
import warnings
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from pipelines.shards.manifest import Encoding
from resnet.images import image_orientation
from resnet.images.checks import image_headers, image_kinds, jpeg_scans
from resnet.images.checks.image_limits import LIMITS, TooLarge
from resnet.images.decode import decode_noting, decode_reduced, open_by_pillow
from resnet.images.dicom import read_dicom_header
from resnet.images.grey_range import GreyRange
from resnet.images.jpeg_header import read_jpeg_header

JPEG_MODES = {1: "L", 3: "RGB"}  # by components
LONGEST = 65_500  # side that libjpeg encodes
LOST = "more than 8 bits of grey, the lower ones are lost without --grey-range"


class Admitted(NamedTuple):
    """A row of a shard. unusual: properties of the image that a person may want to know of; empty for a plain one.

    size: height and width of the upright image, which all that read it will see.
    """

    data: bytes
    unusual: tuple[str, ...]
    reencoded: bool
    size: tuple[int, int]


class Seen(NamedTuple):
    """Upright pixels, (H, W, 3) uint8, and what is unusual of the image.

    is_deep: it is grey of more than 8 bits; is_reduced: it is over the limit of pixels, and was shrunk while decoded;
    is_dicom: its header names a patient, and stays out of the shards.
    """

    pixels: np.ndarray
    unusual: tuple[str, ...] = ()
    is_deep: bool = False
    is_reduced: bool = False
    is_dicom: bool = False


def admit(data: bytes, key: str, encoding: Encoding) -> Admitted:
    """Decode an image and encode it as asked. Raises CorruptImage, with the reason, if it cannot be decoded."""
    side, quality = encoding.shorter_side, encoding.quality
    seen = _seen(data, key, encoding)
    if side is not None and quality is not None and (min(seen.pixels.shape[:2]) > side or seen.is_reduced):
        small = np.ascontiguousarray(shrink(seen.pixels, side))
        if max(small.shape) > LONGEST:
            raise TooLarge(f"an image must have sides of at most {LONGEST} once scaled down, got {max(small.shape)}")
        return Admitted(simplejpeg.encode_jpeg(small, quality, "RGB", "420"), seen.unusual, True, small.shape[:2])
    size = seen.pixels.shape[:2]
    if seen.is_dicom or (seen.is_deep and encoding.grey_range is not None):
        is_grey = bool((seen.pixels == seen.pixels[..., :1]).all())
        return Admitted(_png(seen.pixels[..., 0] if is_grey else seen.pixels), seen.unusual, True, size)
    return Admitted(data, seen.unusual, False, size)


def _seen(data: bytes, key: str, encoding: Encoding) -> Seen:
    """Decoded, a JPEG above the limit of pixels too if it is to be scaled down. Raises CorruptImage."""
    try:
        seen = _pixels(data, encoding.grey_range)
    except TooLarge as error:
        if encoding.shorter_side is not None:
            pixels = decode_reduced(data, encoding.shorter_side)
            return Seen(pixels, (f"more than {LIMITS.pixels:,} pixels, scaled down",), is_reduced=True)
        if len(data) <= LIMITS.bytes and image_kinds.kind_of(data).name == "JPEG":
            raise TooLarge(f"{error}; with --shorter-side a larger JPEG is scaled down while it is decoded") from None
        raise
    found, deep, dicom = _header(data, key)
    lost = (LOST,) if deep and encoding.grey_range is None else ()
    return Seen(seen.pixels, (*seen.unusual, *found, *lost), deep, is_dicom=dicom)


def shrink(pixels: np.ndarray, shorter_side: int) -> np.ndarray:
    """(H, W, 3) uint8 -> the same picture with so many pixels on the shorter side.

    Bilinear and antialiased, as evaluation scales: closer to it than bicubic at 256, and a third faster.
    """
    height, width = pixels.shape[:2]
    scale = shorter_side / min(height, width)
    size = max(shorter_side, round(width * scale)), max(shorter_side, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _pixels(data: bytes, grey_range: tuple[int, int] | None) -> Seen:
    """Also whether libjpeg found damage that it could mend, as every reader of the image will; and the orientation."""
    header, damage = read_jpeg_header(data), ()
    if header is not None:
        try:
            pixels = image_orientation.upright(simplejpeg.decode_jpeg(data, strict=True), header.orientation)
            return Seen(pixels, _turned(header.orientation))
        except ValueError:
            damage = ("damaged inside, as libjpeg warns",)
    pixels, orientation = decode_noting(data, None if grey_range is None else GreyRange(*grey_range))
    return Seen(pixels, (*damage, *_turned(orientation)))


def _turned(orientation: int) -> tuple[str, ...]:
    return (f"EXIF orientation {orientation}, turned upright",) if orientation != 1 else ()


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG")
    return stream.getvalue()


def _header(data: bytes, key: str) -> tuple[tuple[str, ...], bool, bool]:
    """Unusual properties in the header of an image that decodes; is it grey of more than 8 bits, and is it a DICOM."""
    kind = image_headers.check_header(data)
    mode, animated = _mode(data, kind.name)
    suffix = key.rpartition("/")[2].rpartition(".")[2].lower() if "." in key.rpartition("/")[2] else ""
    found = []
    if suffix and suffix not in kind.suffixes:
        found.append(f"{kind.name} named .{suffix}")
    if mode not in ("RGB", "P"):
        found.append(f"{kind.name} of mode {mode}")
    if animated:
        found.append("animated, the first frame counts")
    return tuple(found), mode.startswith("I"), kind.name == "DICOM"


def _mode(data: bytes, kind: str) -> tuple[str, bool]:
    """Pillow's mode, and whether the image has several frames or pages."""
    if kind == "JPEG":
        frame = jpeg_scans.read_frame(data)
        return JPEG_MODES.get(frame.components if frame else 0, "CMYK"), False
    if kind == "DICOM":
        header = read_dicom_header(data, LIMITS)
        grey = "I;16" if header.is_deep else "L" if header.window is None else "L by its window"
        return ("RGB" if header.samples == 3 else grey), False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notes of cameras are often out of order
        image = open_by_pillow(data)
        return image.mode, _is_animated(image)


def _is_animated(image: Image.Image) -> bool:
    """Pillow looks for a second frame; what is damaged behind the first is no reason to refuse the image."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # nearly any class, as of all its readers
        return False
