"""Bytes of an image file of any kind -> (H, W, 3) uint8 pixels, RGB. What is no picture is one error."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from resnet import region

if TYPE_CHECKING:
    from PIL import Image

# Readers of Pillow that are asked, by content. EPS, PDF and WMF are left out: they run other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
MAX_PIXELS = region.MAX_PIXELS

# EXIF orientation -> (transpose first, reverse rows, reverse columns).
ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


class CorruptImage(ValueError):
    """Bytes that give no RGB picture: empty, truncated, corrupt, too large, or of a kind without 8-bit colours."""


class TooLarge(CorruptImage):
    """More than MAX_PIXELS, as stored or once resized."""


def decode(data: region.Data, exif: bool = False) -> np.ndarray:
    """Bytes of an image file -> (H, W, 3) uint8 RGB, equal to Pillow's. CorruptImage where there is no picture.

    The kind is told by content, whatever the file was called. Grayscale is repeated, transparency is laid on white,
    CMYK converted, 16 bits lose the lower eight, of an animation the first frame counts. exif: turn the picture upright
    as its camera says. ImageNet's loaders do not, hence the default; for photographs that people send, do.
    """
    data = bytes(data)  # a copy of what is none yet: Pillow's readers keep it
    header = region.read_header(data)
    image = None
    if header is not None:
        try:
            image = simplejpeg.decode_jpeg(data, strict=False)  # as libjpeg does for Pillow: its warnings are no errors
        except ValueError:
            image = None
    if image is None:
        image = _decode_by_pillow(data)
    return _upright(image, _orientation(data)) if exif else image


def size_of(data: bytes) -> tuple[int, int]:
    """(height, width) as stored, from the header alone. CorruptImage where there is none."""
    header = region.read_header(data)
    if header is not None:
        return header.height, header.width
    width, height = _open(data).size
    return height, width


def _open(data: bytes) -> Image.Image:
    """Pillow's image, its pixels not yet read. CorruptImage."""
    from PIL import Image

    if not data:
        raise CorruptImage("an image must have bytes, got none")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"an image must have at most {MAX_PIXELS} pixels: {error}") from None
    except Image.UnidentifiedImageError:
        raise CorruptImage(f"an image must be one of {', '.join(FORMATS)}, got bytes {data[:8]!r}...") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly any class on hostile bytes
        raise CorruptImage(f"an image must have a readable header: {error}") from None
    if image.width * image.height > MAX_PIXELS:
        raise TooLarge(f"an image must have at most {MAX_PIXELS} pixels, got {image.width} x {image.height}")
    if image.width * image.height < 1:
        raise CorruptImage(f"an image must have pixels, got {image.width} x {image.height}")
    return image


def _decode_by_pillow(data: bytes) -> np.ndarray:
    image = _open(data)
    try:
        return _to_rgb(image)
    except (CorruptImage, MemoryError):
        raise
    except Exception as error:  # as in _open
        what = f"{image.format}, {image.width} x {image.height}"
        raise CorruptImage(f"an image must be complete, got {what}: {error}") from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Pillow's image of any mode -> (H, W, 3) uint8. CorruptImage for pixels that are no colours."""
    from PIL import Image

    if image.mode == "F":
        raise CorruptImage(f"an image must have 8 or 16 bits a colour, got 32-bit floats ({image.format})")
    if image.mode.startswith("I"):  # 16-bit grayscale: Pillow's own conversion would clip at 255
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 0xFFFF:
            raise CorruptImage(f"an image must have 8 or 16 bits a colour, got 32-bit integers ({image.format})")
        return np.repeat((gray >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))  # a copy: Pillow's own memory is read-only


def _orientation(data: bytes) -> int:
    """EXIF orientation, 1 to 8; 1, upright, where it is absent or unreadable, as browsers have it."""
    try:
        return int(_open(data).getexif().get(0x0112, 1))
    except Exception:  # a picture with a broken camera note is still a picture
        return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    transpose, rows, columns = ORIENTATIONS.get(orientation, (False, False, False))
    image = image.transpose(1, 0, 2) if transpose else image
    return np.ascontiguousarray(image[:: -1 if rows else 1, :: -1 if columns else 1])
