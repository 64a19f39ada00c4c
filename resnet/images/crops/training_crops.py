"""Random crops for training, from the bytes of an image file, and the order in which they draw.

Pure functions of (bytes, rng): the same bytes and the same generator give the same pixels, whichever process runs
them. Pixels are (H, W, 3) uint8, RGB. Lengths are in pixels, offsets from the top left.

Only what the crop shows is decoded and resized (resnet/images/jpeg_region.py); the pixels differ from Pillow's by 0.2
grey levels on average. Both filter as Pillow's BILINEAR does: a triangle, wide enough that nothing aliases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from resnet.images import image_orientation, jpeg_header, jpeg_region
from resnet.images.checks.image_limits import CorruptImage
from resnet.images.crops.evaluation_crops import check_crop, scaled_size
from resnet.images.crops.mirror import draw_flip, mirrored
from resnet.images.decode import decode


def random_resized_crop(
    data: jpeg_header.Data,
    rng: np.random.Generator,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    engine: jpeg_region.JpegEngine | None = None,
    flip: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A random part of the image resized to (size, size, 3): torchvision's RandomResizedCrop. engine: region.best().

    flip: half of the time its mirror image, as `flip` of the result would be; out: where to, or a new array.
    """
    return make(cut_resized(data, rng, area, ratio, flip), size, engine, out)


def scale_jitter_crop(
    data: jpeg_header.Data,
    rng: np.random.Generator,
    size: int,
    shorter_side: tuple[int, int] = (256, 480),
    engine: jpeg_region.JpegEngine | None = None,
    flip: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A random size x size crop of the image with a random shorter side (section 3.4). (size, size, 3).

    As if the whole were resized and then cropped, without the work. engine, flip, out: as for random_resized_crop.
    """
    return make(cut_jittered(data, rng, size, shorter_side, flip), size, engine, out)


class Pixels(NamedTuple):
    """A crop that is drawn and not yet made, of what is no JPEG that jpeg_region.py knows; as its Cut."""

    pixels: np.ndarray
    box: jpeg_region.Box
    bleed: bool
    mirrored: bool


class Turned(NamedTuple):
    """A crop of a JPEG that is stored sideways or mirrored: cut is made of it as stored, then turned upright.

    mirrored: of the upright crop; cut itself is not.
    """

    cut: jpeg_region.Cut
    orientation: int
    mirrored: bool


Cut = jpeg_region.Cut | Pixels | Turned


def cut_resized(
    data: jpeg_header.Data,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = False,
) -> Cut:
    """Draw the crop of random_resized_crop without making its pixels."""
    source, height, width = _header_or_pixels(data)
    box = draw_resized_crop(rng, height, width, area, ratio)
    return _cut(data, source, box, False, flip and draw_flip(rng))


def cut_jittered(
    data: jpeg_header.Data,
    rng: np.random.Generator,
    size: int,
    shorter_side: tuple[int, int] = (256, 480),
    flip: bool = False,
) -> Cut:
    """Draw the crop of scale_jitter_crop without making its pixels."""
    source, height, width = _header_or_pixels(data)
    box = draw_scale_jitter(rng, height, width, size, shorter_side)
    return _cut(data, source, box, True, flip and draw_flip(rng))


def _cut(
    data: jpeg_header.Data,
    source: jpeg_header.JpegHeader | np.ndarray,
    box: jpeg_region.Box,
    bleed: bool,
    mirrored: bool,
) -> Cut:
    if not isinstance(source, jpeg_header.JpegHeader):
        return Pixels(source, box, bleed, mirrored)
    if source.orientation == 1:
        return jpeg_region.Cut(data, source, box, bleed, mirrored)
    height, width = image_orientation.upright_size(source.height, source.width, source.orientation)
    stored = image_orientation.stored_box(box, height, width, source.orientation)
    return Turned(jpeg_region.Cut(data, source, stored, bleed), source.orientation, mirrored)


def make(
    cut: Cut, size: int, engine: jpeg_region.JpegEngine | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """(size, size, 3): into out, which is contiguous, or a new array. engine: region.best(). CorruptImage if it is."""
    engine = engine or jpeg_region.best()
    if isinstance(cut, Turned):
        pixels = image_orientation.upright(make(cut.cut, size, engine), cut.orientation)
        pixels = mirrored(pixels) if cut.mirrored else pixels
        if out is None:
            return pixels
        out[:] = pixels
        return out
    if isinstance(cut, jpeg_region.Cut):
        try:
            return jpeg_region.crop_and_resize(cut, size, engine, out)
        except jpeg_region.Undecodable:
            pass
    return _make_of_pixels(cut, size, engine, out)


def make_all(
    cuts: Sequence[Cut], size: int, outs: Sequence[np.ndarray], engine: jpeg_region.JpegEngine | None = None
) -> list[int]:
    """Several at once, each into its contiguous array: the same pixels. The places of those that are corrupt."""
    engine = engine or jpeg_region.best()
    jpegs = {i: cut for i, cut in enumerate(cuts) if isinstance(cut, jpeg_region.Cut)}
    places = list(jpegs)
    undecodable = jpeg_region.crop_and_resize_all(list(jpegs.values()), size, engine, [outs[i] for i in places])
    left = set(range(len(cuts))) - set(places) | {places[k] for k in undecodable}
    corrupt = []
    for i in sorted(left):
        try:
            _make_slowly(cuts[i], size, engine, outs[i])
        except CorruptImage:
            corrupt.append(i)
    return corrupt


def _make_slowly(cut: Cut, size: int, engine: jpeg_region.JpegEngine, out: np.ndarray) -> None:
    """Make a crop that make_all's one call of C has not made."""
    if isinstance(cut, Turned):
        make(cut, size, engine, out)
    else:
        _make_of_pixels(cut, size, engine, out)


def _make_of_pixels(
    cut: jpeg_region.Cut | Pixels, size: int, engine: jpeg_region.JpegEngine, out: np.ndarray | None
) -> np.ndarray:
    pixels, box = cut.pixels if isinstance(cut, Pixels) else decode(cut.data, as_stored=True), cut.box
    if not cut.bleed:
        top, left, height, width = (int(length) for length in box)
        pixels, box = pixels[top : top + height, left : left + width], (0, 0, height, width)
    return engine.resize(pixels, box, size, size, out, cut.mirrored)


def draw_resized_crop(
    rng: np.random.Generator, height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """(top, left, height, width) with a share of the area and a ratio of width to height drawn from their ranges.

    Ten tries, then the largest central part within the range of ratios (torchvision's RandomResizedCrop). The area is
    drawn uniformly, the ratio so that r and 1 / r are equally likely.
    """
    (least, most), (low, high) = area, (math.log(ratio[0]), math.log(ratio[1]))
    for _ in range(10):
        pixels = height * width * (least + (most - least) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w, h = min(width, round(height * ratio[1])), min(height, round(width / ratio[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def draw_scale_jitter(
    rng: np.random.Generator, height: int, width: int, size: int, shorter_side: tuple[int, int]
) -> jpeg_region.Box:
    """Box of the stored image under a random size x size crop of it at a random shorter side; ends included.

    Draws the shorter side, then top, then left, in pixels of the resized image.
    """
    check_crop(size, shorter_side[0])
    shorter = int(rng.integers(shorter_side[0], shorter_side[1], endpoint=True))
    tall, wide = scaled_size(height, width, shorter)
    top, left = int(rng.integers(tall - size + 1)), int(rng.integers(wide - size + 1))
    y, x = height / tall, width / wide
    return top * y, left * x, size * y, size * x


def _header_or_pixels(data: jpeg_header.Data) -> tuple[jpeg_header.JpegHeader | np.ndarray, int, int]:
    """A JPEG's header, or the upright pixels of anything else; and the height and width of the upright image."""
    header = jpeg_header.read_jpeg_header(data)
    if header is not None:
        return header, *image_orientation.upright_size(header.height, header.width, header.orientation)
    pixels = decode(data)
    return pixels, *pixels.shape[:2]
