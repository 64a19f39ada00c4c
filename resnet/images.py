"""Bytes of an image file -> uint8 pixels: decode, the crops of training and evaluation, mirror, colour.

Pure functions of (bytes, rng): the same bytes and the same generator give the same pixels, whichever process runs
them. Pixels are (H, W, 3) uint8, RGB. Lengths are in pixels, offsets from the top left.

Two ways lead to a crop. Evaluation takes `center_crop`, equal to Pillow's and torchvision's bit for bit. Training takes
`random_resized_crop` and `scale_jitter_crop`, which decode and resize only what the crop shows (resnet/region.py), and
differ from Pillow by 0.2 grey levels on average. Both filter as Pillow's BILINEAR does: a triangle, wide enough that
nothing aliases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from resnet import image_orientation, region
from resnet.decoding import MAX_PIXELS, CorruptImage, TooLarge, decode, size_of
from resnet.grey_range import GreyRange
from resnet.settings import Interpolation

__all__ = [
    "CorruptImage",
    "Cut",
    "TooLarge",
    "center_crop",
    "cut_jittered",
    "cut_resized",
    "decode",
    "draw_flip",
    "draw_pad_crop",
    "draw_resized_crop",
    "draw_scale_jitter",
    "flip",
    "make",
    "make_all",
    "pad_crop_flip",
    "pca_color",
    "pca_shift",
    "random_resized_crop",
    "resize_shorter",
    "resized",
    "scale_jitter_crop",
    "scaled_size",
    "size_of",
]

# Eigenvalues and eigenvectors (columns) of the covariance of RGB over ImageNet's training pixels in [0, 1], as
# facebookarchive/fb.resnet.torch:datasets/imagenet.lua gives them. Krizhevsky et al. 2012, section 4.1.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


# --- Crops for evaluation: Pillow's pixels ----------------------------------------------------------------------------


def scaled_size(height: int, width: int, shorter_side: int) -> tuple[int, int]:
    """(height, width) with the shorter side as given and the longer in proportion, rounded down as torchvision does."""
    longer = int(shorter_side * max(height, width) / min(height, width))
    return (shorter_side, longer) if height <= width else (longer, shorter_side)


def resize_shorter(data: bytes, shorter_side: int) -> np.ndarray:
    """The whole image with its shorter side as given, (H, W, 3): for 10-crop and fully convolutional evaluation."""
    image, height, width = _decoded(data, shorter_side, None)
    if (height, width) == image.shape[:2]:
        return image
    return region.best().resize_window(image, height, width, 0, 0, height, width)


def center_crop(
    data: bytes,
    size: int,
    shorter_side: int,
    grey_range: GreyRange | None = None,
    interpolation: Interpolation = "bilinear",
) -> np.ndarray:
    """The middle size x size of the upright image with its shorter side as given. (size, size, 3).

    Equal to torchvision's Resize(shorter_side, interpolation) and CenterCrop(size) of a Pillow image, bit for bit.
    grey_range: of grey images of more than 8 bits, as in decode.
    """
    _check_crop(size, shorter_side)
    image, height, width = _decoded(data, shorter_side, grey_range)
    top, left = (round((length - size) / 2) for length in (height, width))
    if (height, width) == image.shape[:2]:
        return np.ascontiguousarray(image[top : top + size, left : left + size])
    if interpolation == "bicubic":
        return np.ascontiguousarray(resized(image, height, width, "bicubic")[top : top + size, left : left + size])
    return region.best().resize_window(image, height, width, top, left, size, size)


def resized(image: np.ndarray, height: int, width: int, interpolation: Interpolation = "bilinear") -> np.ndarray:
    """The whole image (H, W, 3) at another size, by Pillow."""
    from PIL import Image

    by = Image.Resampling.BICUBIC if interpolation == "bicubic" else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize((width, height), by))


def _decoded(data: bytes, shorter_side: int, grey_range: GreyRange | None) -> tuple[np.ndarray, int, int]:
    """The upright image, and the (height, width) that it has with its shorter side as given."""
    image = decode(data, grey_range)
    height, width = scaled_size(image.shape[0], image.shape[1], shorter_side)
    if height * width > MAX_PIXELS:  # a hair, one pixel wide, would grow to gigabytes
        raise TooLarge(f"a resized image must have at most {MAX_PIXELS} pixels, got {width} x {height}: it is narrow")
    return image, height, width


def _check_crop(size: int, shorter_side: int) -> None:
    if not 1 <= size <= shorter_side:
        raise ValueError(f"shorter_side must be at least size, and size at least 1, got {shorter_side} and {size}")


# --- Crops for training: only what is seen is decoded -----------------------------------------------------------------


def random_resized_crop(
    data: region.Data,
    rng: np.random.Generator,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    engine: region.Engine | None = None,
    flip: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A random part of the image resized to (size, size, 3): torchvision's RandomResizedCrop. engine: region.best().

    flip: half of the time its mirror image, as `flip` of the result would be; out: where to, or a new array.
    """
    return make(cut_resized(data, rng, area, ratio, flip), size, engine, out)


def scale_jitter_crop(
    data: region.Data,
    rng: np.random.Generator,
    size: int,
    shorter_side: tuple[int, int] = (256, 480),
    engine: region.Engine | None = None,
    flip: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """A random size x size crop of the image with a random shorter side (section 3.4). (size, size, 3).

    As if the whole were resized and then cropped, without the work. engine, flip, out: as for random_resized_crop.
    """
    return make(cut_jittered(data, rng, size, shorter_side, flip), size, engine, out)


class Pixels(NamedTuple):
    """A crop that is drawn and not yet made, of what is no JPEG that region.py knows; as its Cut."""

    pixels: np.ndarray
    box: region.Box
    bleed: bool
    mirrored: bool


class Turned(NamedTuple):
    """A crop of a JPEG that is stored sideways or mirrored: cut is made of it as stored, then turned upright.

    mirrored: of the upright crop; cut itself is not.
    """

    cut: region.Cut
    orientation: int
    mirrored: bool


Cut = region.Cut | Pixels | Turned


def cut_resized(
    data: region.Data,
    rng: np.random.Generator,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = False,
) -> Cut:
    """What random_resized_crop makes."""
    source, height, width = _header_or_pixels(data)
    box = draw_resized_crop(rng, height, width, area, ratio)
    return _cut(data, source, box, False, flip and draw_flip(rng))


def cut_jittered(
    data: region.Data,
    rng: np.random.Generator,
    size: int,
    shorter_side: tuple[int, int] = (256, 480),
    flip: bool = False,
) -> Cut:
    """What scale_jitter_crop makes."""
    source, height, width = _header_or_pixels(data)
    box = draw_scale_jitter(rng, height, width, size, shorter_side)
    return _cut(data, source, box, True, flip and draw_flip(rng))


def _cut(data: region.Data, source: region.Header | np.ndarray, box: region.Box, bleed: bool, mirrored: bool) -> Cut:
    if not isinstance(source, region.Header):
        return Pixels(source, box, bleed, mirrored)
    if source.orientation == 1:
        return region.Cut(data, source, box, bleed, mirrored)
    height, width = image_orientation.upright_size(source.height, source.width, source.orientation)
    stored = image_orientation.stored_box(box, height, width, source.orientation)
    return Turned(region.Cut(data, source, stored, bleed), source.orientation, mirrored)


def make(cut: Cut, size: int, engine: region.Engine | None = None, out: np.ndarray | None = None) -> np.ndarray:
    """(size, size, 3): into out, which is contiguous, or a new array. engine: region.best(). CorruptImage if it is."""
    engine = engine or region.best()
    if isinstance(cut, Turned):
        pixels = image_orientation.upright(make(cut.cut, size, engine), cut.orientation)
        pixels = _mirror(pixels) if cut.mirrored else pixels
        if out is None:
            return pixels
        out[:] = pixels
        return out
    if isinstance(cut, region.Cut):
        try:
            return region.crop_and_resize(cut, size, engine, out)
        except region.Undecodable:
            pass
    return _make_of_pixels(cut, size, engine, out)


def make_all(
    cuts: Sequence[Cut], size: int, outs: Sequence[np.ndarray], engine: region.Engine | None = None
) -> list[int]:
    """Several at once, each into its contiguous array: the same pixels. The places of those that are corrupt."""
    engine = engine or region.best()
    jpegs = {i: cut for i, cut in enumerate(cuts) if isinstance(cut, region.Cut)}
    places = list(jpegs)
    undecodable = region.crop_and_resize_all(list(jpegs.values()), size, engine, [outs[i] for i in places])
    left = set(range(len(cuts))) - set(places) | {places[k] for k in undecodable}
    corrupt = []
    for i in sorted(left):
        try:
            _make_slowly(cuts[i], size, engine, outs[i])
        except CorruptImage:
            corrupt.append(i)
    return corrupt


def _make_slowly(cut: Cut, size: int, engine: region.Engine, out: np.ndarray) -> None:
    """What make_all's one call of C has not made."""
    if isinstance(cut, Turned):
        make(cut, size, engine, out)
    else:
        _make_of_pixels(cut, size, engine, out)


def _make_of_pixels(cut: region.Cut | Pixels, size: int, engine: region.Engine, out: np.ndarray | None) -> np.ndarray:
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
) -> region.Box:
    """Box of the stored image under a random size x size crop of it at a random shorter side; ends included.

    Draws the shorter side, then top, then left, in pixels of the resized image.
    """
    _check_crop(size, shorter_side[0])
    shorter = int(rng.integers(shorter_side[0], shorter_side[1], endpoint=True))
    tall, wide = scaled_size(height, width, shorter)
    top, left = int(rng.integers(tall - size + 1)), int(rng.integers(wide - size + 1))
    y, x = height / tall, width / wide
    return top * y, left * x, size * y, size * x


def _header_or_pixels(data: region.Data) -> tuple[region.Header | np.ndarray, int, int]:
    """A JPEG's header, or the upright pixels of anything else; and the height and width of the upright image."""
    header = region.read_header(data)
    if header is not None:
        return header, *image_orientation.upright_size(header.height, header.width, header.orientation)
    pixels = decode(data)
    return pixels, *pixels.shape[:2]


# --- Mirror and colour ------------------------------------------------------------------------------------------------


def flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image or, as often, its mirror image. (H, W, 3)."""
    return _mirror(image) if draw_flip(rng) else image


def draw_flip(rng: np.random.Generator) -> bool:
    """True half of the time."""
    return rng.random() < 0.5


def _mirror(image: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) -> its mirror image, new. By channel: numpy is slow at turning pixels of three bytes (5 times)."""
    mirror = np.empty_like(image)
    for c in range(3):
        mirror[..., c] = image[..., ::-1, c]
    return mirror


def pca_shift(rng: np.random.Generator, std: float = 0.1, color: Literal["pca", "pca-std"] = "pca") -> np.ndarray:
    """AlexNet's PCA colour: (3,) float32 to add to R, G and B in [0, 255], one draw an image.

    Adding it commutes with subtracting a mean, so the device may do it after normalising (divide it by the same std).
    color: `pca` multiplies the draws by the eigenvalues (standard deviations of 5.5, 0.5 and 0.1 grey levels along the
    eigenvectors), `pca-std` by their square roots (11.9, 3.5 and 1.7). The draws are the same.
    """
    lengths = EIGENVALUES if color == "pca" else np.sqrt(EIGENVALUES)
    return (255 * EIGENVECTORS @ (rng.normal(0, std, 3) * lengths)).astype(np.float32)


def pca_color(image: np.ndarray, rng: np.random.Generator, std: float = 0.1) -> np.ndarray:
    """The image with `pca_shift` added, rounded and clipped. (H, W, 3) uint8."""
    levels = np.arange(256, dtype=np.float32)[:, None] + pca_shift(rng, std)
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.stack([table[:, c].take(image[..., c]) for c in range(3)], axis=2)


# --- Small images, in batches -----------------------------------------------------------------------------------------


def draw_pad_crop(rng: np.random.Generator, n: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """n draws for `pad_crop_flip`: offsets (n, 2), each from 0 to 2 pad, and flips (n,), true half of the time."""
    return rng.integers(0, 2 * pad, (n, 2), endpoint=True), rng.random(n) < 0.5


def border_color(border: Literal["black", "mean"], mean: np.ndarray) -> np.ndarray:
    """(3,) uint8, the colour of the padding. mean: (3, H, W) or (3, 1, 1) of the training set, in [0, 255]."""
    return np.rint(mean.mean((1, 2))).astype(np.uint8) if border == "mean" else np.zeros(3, np.uint8)


def pad_crop_flip(
    images: np.ndarray, offsets: np.ndarray, flips: np.ndarray, pad: int = 4, border: np.ndarray | None = None
) -> np.ndarray:
    """Pad, crop back to the same size, mirror some (section 4.2). (N, H, W, 3) uint8 -> the same, new.

    offsets: (N, 2) top and left of the crop in the padded image, pad is the middle; flips: (N,) bool; border: (3,)
    uint8, the colour of the padding, black without one.
    """
    n, height, width, channels = images.shape
    if offsets.shape != (n, 2) or flips.shape != (n,):
        raise ValueError(f"offsets and flips must be ({n}, 2) and ({n},), got {offsets.shape} and {flips.shape}")
    if n and (offsets.min() < 0 or offsets.max() > 2 * pad):
        raise ValueError(f"offsets must lie in [0, {2 * pad}], got {offsets.min()} to {offsets.max()}")
    padded = np.zeros((n, height + 2 * pad, width + 2 * pad, channels), np.uint8)
    if border is not None and border.any():
        padded[:] = border
    padded[:, pad : pad + height, pad : pad + width] = images
    crops = np.empty_like(images)
    for crop, whole, (top, left) in zip(crops, padded, offsets.tolist(), strict=True):
        crop[:] = whole[top : top + height, left : left + width]
    crops[flips] = _mirror(crops[flips])
    return crops
