"""Crops, mirror and colour against Pillow and torchvision; their draws against torchvision's by statistics."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import chisquare, ks_2samp
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

from resnet import images, region

Photograph = Callable[..., np.ndarray]
Encode = Callable[..., bytes]

BILINEAR = InterpolationMode.BILINEAR
HERE = [name for name in region.ENGINES if region.engine(name)]
SIZES = [(375, 500), (500, 333), (224, 224), (256, 256), (225, 301), (100, 90), (60, 900), (700, 41), (31, 32)]


@pytest.fixture(scope="module")
def files(photograph: Photograph, encode: Encode) -> list[bytes]:
    """JPEGs of all sizes, larger and smaller than the crop, of three samplings and qualities; and a PNG."""
    ways = [("4:4:4", 95), ("4:2:0", 90), ("4:2:2", 75)]
    made = []
    for i, (height, width) in enumerate(SIZES):
        sampling, quality = ways[i % 3]
        made.append(encode(photograph(i, height, width), subsampling=sampling, quality=quality, progressive=i % 4 == 3))
    return [*made, encode(photograph(99, 260, 300), "PNG")]


def opened(data: bytes) -> Any:  # a Pillow image; torchvision's signatures know tensors only
    return Image.open(io.BytesIO(data)).convert("RGB")


def as_image(pixels: np.ndarray) -> Any:
    return Image.fromarray(pixels)


def likely_alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two samples may come from one distribution (Kolmogorov and Smirnov)."""
    return cast(Any, ks_2samp(a, b, method="asymp")).pvalue > 1e-3


def likely_even(counts: np.ndarray) -> bool:
    return cast(Any, chisquare(counts)).pvalue > 1e-3


def difference(got: np.ndarray, expected: Image.Image | np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    assert got.shape == np.asarray(expected).shape
    return float(np.abs(got.astype(int) - np.asarray(expected)).mean())


# --- Evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "shorter_side"), [(224, 256), (224, 224), (32, 32), (223, 256), (64, 73), (1, 7)])
def test_the_centre_crop_is_torchvisions_bit_for_bit(size: int, shorter_side: int, files: list[bytes]):
    reference = transforms.Compose([transforms.Resize(shorter_side), transforms.CenterCrop(size)])
    for data in files:
        assert np.array_equal(images.center_crop(data, size, shorter_side), np.asarray(reference(opened(data))))


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), shorter=st.integers(1, 120), keep=st.floats(0, 1))
def test_sizes_and_offsets_round_as_torchvision_does(
    height: int, width: int, shorter: int, keep: float, photograph: Photograph, encode: Encode
):
    data, size = encode(photograph(1, height, width), "PNG"), max(1, round(keep * shorter))
    resized = transforms.Resize(shorter)(opened(data))
    assert images.scaled_size(height, width, shorter) == (resized.height, resized.width)
    assert np.array_equal(images.resize_shorter(data, shorter), np.asarray(resized))
    assert np.array_equal(images.center_crop(data, size, shorter), np.asarray(transforms.CenterCrop(size)(resized)))


def test_the_centre_crop_is_upright(photograph: Photograph, encode: Encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = photograph(2, 60, 90)
    turned = encode(picture, "PNG", exif=exif)
    upright = encode(np.rot90(picture, -1), "PNG")
    assert np.array_equal(images.center_crop(turned, 32, 40), images.center_crop(upright, 32, 40))


def test_impossible_crops_are_refused(files: list[bytes], encode: Encode):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="got 223 and 224"):
        images.center_crop(files[0], 224, 223)
    with pytest.raises(ValueError, match="got 200 and 224"):
        images.scale_jitter_crop(files[0], rng, 224, (200, 480))
    hair = encode(np.zeros((1, 60_000, 3), np.uint8), "PNG")
    with pytest.raises(images.TooLarge, match="narrow"):
        images.center_crop(hair, 224, 256)
    assert images.scale_jitter_crop(hair, rng, 224).shape == (224, 224, 3)  # takes what it sees


# --- Training: pixels -------------------------------------------------------------------------------------------------


def resized_crop_by_pillow(data: bytes, rng: np.random.Generator, size: int) -> Any:
    picture = opened(data)
    box = images.draw_resized_crop(rng, picture.height, picture.width, (0.08, 1), (3 / 4, 4 / 3))
    return tv.resized_crop(picture, *box, [size, size], BILINEAR)


def jittered_by_pillow(data: bytes, rng: np.random.Generator, size: int, sides: tuple[int, int]) -> Any:
    """Resize the whole, then crop."""
    picture = opened(data)
    shorter = int(rng.integers(*sides, endpoint=True))
    resized: Any = tv.resize(picture, [shorter], BILINEAR)
    top, left = int(rng.integers(resized.height - size + 1)), int(rng.integers(resized.width - size + 1))
    return tv.crop(resized, top, left, size, size)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("size", [224, 128, 32])
def test_random_resized_crops_are_pillows_within_a_grey_level(name: str, size: int, files: list[bytes]):
    seeds = [(i, seed) for i in range(len(files)) for seed in range(4)]
    apart = []
    for i, seed in seeds:
        key = (i, seed)
        got = images.random_resized_crop(files[i], np.random.default_rng(key), size, engine=region.engine(name))
        apart.append(difference(got, resized_crop_by_pillow(files[i], np.random.default_rng(key), size)))
    print(f"{name}, {size}: mean {np.mean(apart):.3f}, worst {max(apart):.3f} grey levels")
    assert np.mean(apart) < 0.5  # a smaller crop of a large image is shrunk while it is decoded
    assert max(apart) < (1 if size == 224 else 2.5)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize(("size", "sides"), [(224, (256, 480)), (224, (224, 224)), (32, (37, 69))])
def test_scale_jitter_is_the_whole_resized_and_cropped(
    name: str, size: int, sides: tuple[int, int], files: list[bytes]
):
    apart = []
    for i, data in enumerate(files):
        for seed in range(3):
            rngs = [np.random.default_rng((i, seed)) for _ in range(2)]
            got = images.scale_jitter_crop(data, rngs[0], size, sides, region.engine(name))
            apart.append(difference(got, jittered_by_pillow(data, rngs[1], size, sides)))
    print(f"{name}, {size} of {sides}: mean {np.mean(apart):.3f}, worst {max(apart):.3f} grey levels")
    assert np.mean(apart) < 0.5
    assert max(apart) < (1 if size == 224 else 2.5)


@pytest.mark.parametrize("name", HERE)
def test_crops_of_real_images_are_pillows_within_a_grey_level(name: str, real_images: Path):
    paths = sorted((real_images / "imagenet-sample").glob("*/*"))[::5]
    assert len(paths) == 50
    apart = {"random resized": [], "scale jitter": []}
    for i, path in enumerate(paths):
        data, engine = path.read_bytes(), region.engine(name)
        rngs = [np.random.default_rng(i) for _ in range(4)]
        got = images.random_resized_crop(data, rngs[0], 224, engine=engine)
        apart["random resized"].append(difference(got, resized_crop_by_pillow(data, rngs[1], 224)))
        got = images.scale_jitter_crop(data, rngs[2], 224, engine=engine)
        apart["scale jitter"].append(difference(got, jittered_by_pillow(data, rngs[3], 224, (256, 480))))
    for what, levels in apart.items():
        print(f"{name}, {what}: mean {np.mean(levels):.3f}, worst {max(levels):.3f} grey levels")
        assert np.mean(levels) < 0.3
        assert max(levels) < 1


def test_images_that_are_no_jpeg_crop_alike(photograph: Photograph, encode: Encode):
    picture = photograph(5, 120, 160)
    for seed in range(8):
        rngs = [np.random.default_rng(seed) for _ in range(4)]
        png, bmp = encode(picture, "PNG"), encode(picture, "BMP")
        assert difference(images.random_resized_crop(png, rngs[0], 64), resized_crop_by_pillow(png, rngs[1], 64)) < 0.5
        assert np.array_equal(
            images.scale_jitter_crop(png, rngs[2], 64, (73, 137)), images.scale_jitter_crop(bmp, rngs[3], 64, (73, 137))
        )


def test_equal_generators_give_equal_crops_and_others_do_not(files: list[bytes]):
    for crop in (images.random_resized_crop, images.scale_jitter_crop):
        seen = {}
        for seed in [*range(5), *range(5)]:
            rng = np.random.default_rng((seed, 3, 7))
            pixels = images.flip(crop(files[0], rng, 224), rng).tobytes()
            assert seen.setdefault(seed, pixels) == pixels
        assert len(set(seen.values())) == 5


@pytest.mark.parametrize("name", HERE)
def test_several_at_once_of_every_kind_are_those_one_by_one(
    name: str, files: list[bytes], jpegs: dict[str, bytes], encode: Callable[..., bytes]
):
    png = encode(Image.fromarray(images.decode(files[0])), "PNG")
    broken = jpegs["4:2:0"].replace(b"\xff\xdb", b"\xff\xfe")  # its tables are comments: found when it is decoded
    data = [png, files[1], broken, jpegs["progressive"], png]
    for cut in (images.cut_resized, lambda d, rng: images.cut_jittered(d, rng, 96, (100, 150))):
        cuts = [cut(d, np.random.default_rng(i)) for i, d in enumerate(data)]
        outs = np.zeros((5, 96, 96, 3), np.uint8)
        engine = region.engine(name)
        assert images.make_all(cuts, 96, list(outs), engine) == [2]
        for i in (0, 1, 3, 4):
            assert np.array_equal(outs[i], images.make(cuts[i], 96, engine))
        with pytest.raises(images.CorruptImage):
            images.make(cuts[2], 96, engine)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_files_crop_or_are_corrupt(data: st.DataObject, jpegs: dict[str, bytes]):
    whole = jpegs[data.draw(st.sampled_from(["4:2:0", "progressive", "restart rows", "grayscale"]))]
    damaged = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    reach = data.draw(st.sampled_from([700, len(whole)]))
    for at, byte in data.draw(st.lists(st.tuples(st.integers(0, reach - 1), st.integers(0, 255)), max_size=4)):
        if at < len(damaged):
            damaged[at] = byte
    rng = np.random.default_rng(0)
    for crop in (images.random_resized_crop, images.scale_jitter_crop):
        try:
            pixels = crop(bytes(damaged), rng, 224)
        except images.CorruptImage:
            continue
        assert pixels.shape == (224, 224, 3)
        assert pixels.dtype == np.uint8


# --- Training: draws --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (100, 90), (60, 900)])
@pytest.mark.parametrize(("area", "ratio"), [((0.08, 1), (3 / 4, 4 / 3)), ((0.5, 0.6), (0.9, 2))])
def test_resized_crops_are_drawn_as_torchvision_draws_them(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
):
    n, rng = 2000, np.random.default_rng(1)
    picture: Any = Image.new("RGB", (width, height))
    torch.manual_seed(1)
    theirs = np.array([transforms.RandomResizedCrop.get_params(picture, list(area), list(ratio)) for _ in range(n)])
    ours = np.array([images.draw_resized_crop(rng, height, width, area, ratio) for _ in range(n)])
    for name, a, b in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True):
        assert likely_alike(a, b), name
    assert likely_alike(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])
    assert likely_alike(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 600), width=st.integers(1, 600), seed=st.integers(0, 99))
def test_resized_crops_lie_inside(height: int, width: int, seed: int):
    top, left, tall, wide = images.draw_resized_crop(
        np.random.default_rng(seed), height, width, (0.08, 1), (0.75, 4 / 3)
    )
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    assert tall > 0 < wide


@pytest.mark.parametrize(("height", "width"), [(10, 1000), (1000, 10), (1, 1), (301, 7), (200, 201)])
def test_where_no_draw_fits_the_centre_is_torchvisions(height: int, width: int):
    picture: Any = Image.new("RGB", (width, height))
    for ratio in ((3 / 4, 4 / 3), (2, 3), (0.2, 0.3)):
        # Half as much again as the whole area never fits.
        box = images.draw_resized_crop(np.random.default_rng(0), height, width, (1.5, 1.5), ratio)
        assert box == transforms.RandomResizedCrop.get_params(picture, [1.5, 1.5], list(ratio))


def test_scale_jitter_draws_every_side_and_every_place_alike():
    rng, n = np.random.default_rng(0), 6000
    boxes = np.array([images.draw_scale_jitter(rng, 300, 400, 224, (256, 259)) for _ in range(n)])
    shorter = 300 * 224 / boxes[:, 2]
    sides, counts = np.unique(np.rint(shorter), return_counts=True)
    assert sides.tolist() == [256, 257, 258, 259]
    assert likely_even(counts)
    for axis, length, size in ((0, 256, 300), (1, 341, 400)):
        offsets = np.rint(boxes[np.rint(shorter) == 256, axis] * length / size).astype(int)
        counts = np.bincount(offsets, minlength=length - 224 + 1)
        assert len(counts) == length - 224 + 1
        assert likely_even(counts)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= np.array([300, 400]) + 1e-9).all()


# --- Mirror and colour ------------------------------------------------------------------------------------------------


def test_half_of_the_images_are_mirrored(photograph: Photograph):
    picture, rng = photograph(0, 5, 7), np.random.default_rng(0)
    flipped = [images.flip(picture, rng) for _ in range(1000)]
    mirror = np.asarray(tv.hflip(as_image(picture)))
    mirrored = sum(np.array_equal(f, mirror) for f in flipped)
    assert mirrored + sum(np.array_equal(f, picture) for f in flipped) == 1000
    assert abs(mirrored - 500) < 4 * np.sqrt(250)


@pytest.mark.parametrize("name", HERE)
def test_a_crop_that_is_mirrored_at_once_is_the_mirror_image_of_the_crop(name: str, files: list[bytes]):
    engine = region.engine(name)
    for crop in (images.random_resized_crop, images.scale_jitter_crop):
        for seed in range(6):
            one, two = (np.random.default_rng(seed) for _ in range(2))
            out = np.empty((64, 64, 3), np.uint8)
            given = crop(files[seed % len(files)], one, 64, engine=engine, flip=True, out=out)
            assert given is out
            assert np.array_equal(out, images.flip(crop(files[seed % len(files)], two, 64, engine=engine), two))


def test_the_eigenvectors_are_a_rotation_of_the_colours():
    assert np.allclose(images.EIGENVECTORS.T @ images.EIGENVECTORS, np.eye(3), atol=1e-3)
    assert (np.diff(images.EIGENVALUES) < 0).all()


def test_the_colour_shift_has_alexnets_covariance():
    rng = np.random.default_rng(0)
    shifts = np.stack([images.pca_shift(rng) for _ in range(20_000)])
    assert shifts.dtype == np.float32
    scale = np.diag((255 * 0.1 * images.EIGENVALUES) ** 2)
    expected = images.EIGENVECTORS @ scale @ images.EIGENVECTORS.T
    assert np.allclose(np.cov(shifts.T), expected, rtol=0.05, atol=0.02)
    assert np.abs(shifts.mean(0)).max() < 0.1
    assert not images.pca_shift(rng, 0).any()


def test_the_colour_of_every_pixel_shifts_alike(photograph: Photograph):
    picture = photograph(0, 30, 40)
    picture[0], picture[1] = 0, 255
    for seed in range(5):
        shift = images.pca_shift(np.random.default_rng(seed), 1.0)
        expected = np.clip(np.rint(picture.astype(np.float32) + shift), 0, 255)
        assert np.array_equal(images.pca_color(picture, np.random.default_rng(seed), 1.0), expected)


# --- Small images, in batches -----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    pad=st.integers(0, 5),
    seed=st.integers(0, 9),
)
def test_padded_crops_equal_pillows_one_by_one(n: int, height: int, width: int, pad: int, seed: int):
    rng = np.random.default_rng(seed)
    batch = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    before = batch.copy()
    offsets, flips = images.draw_pad_crop(rng, n, pad)
    crops = images.pad_crop_flip(batch, offsets, flips, pad)
    assert np.array_equal(batch, before)
    assert crops.shape == batch.shape
    for got, picture, (top, left), mirror in zip(crops, batch, offsets, flips, strict=True):
        whole = tv.pad(as_image(picture), [pad])
        expected = tv.crop(whole, int(top), int(left), height, width)
        assert np.array_equal(got, tv.hflip(expected) if mirror else expected)


def test_the_border_is_zero_before_or_after_the_mean_is_subtracted():
    mean = np.random.default_rng(0).uniform(90, 140, (3, 8, 8))
    assert not images.border_color("black", mean).any()
    color = images.border_color("mean", mean)
    assert np.abs(color - mean.mean((1, 2))).max() <= 0.5  # whole grey levels, of a standard deviation of 60
    inside = np.full((1, 8, 8, 3), 255, np.uint8)
    corner = np.zeros((1, 2), int)
    (crop,) = images.pad_crop_flip(inside, corner, np.array([False]), 4, color)
    whole = np.pad(inside[0].astype(int), ((4, 0), (4, 0), (0, 0)), constant_values=-1)[:8, :8]
    assert np.array_equal(crop, np.where(whole < 0, color, whole))


def test_both_colours_take_the_same_draws_and_differ_in_strength():
    weak, strong = (
        images.pca_shift(np.random.default_rng(3), color=color) @ images.EIGENVECTORS for color in ("pca", "pca-std")
    )
    np.testing.assert_allclose(strong / weak, 1 / np.sqrt(images.EIGENVALUES), rtol=0.01)
    shifts = np.stack([images.pca_shift(np.random.default_rng(i), color="pca-std") for i in range(4000)])
    np.testing.assert_allclose((shifts @ images.EIGENVECTORS).std(0), (11.9, 3.5, 1.7), rtol=0.05)


def test_padded_crops_are_drawn_evenly():
    offsets, flips = images.draw_pad_crop(np.random.default_rng(0), 20_000, 4)
    pairs = np.bincount(offsets[:, 0] * 9 + offsets[:, 1], minlength=81)
    assert len(pairs) == 81
    assert likely_even(pairs)
    assert abs(int(flips.sum()) - 10_000) < 4 * np.sqrt(5000)


def test_offsets_outside_the_padding_are_refused():
    batch = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"\[0, 8\], got 0 to 9"):
        images.pad_crop_flip(batch, np.array([[0, 9], [0, 0]]), np.array([True, False]))
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(2,\), got \(1, 2\)"):
        images.pad_crop_flip(batch, np.zeros((1, 2), int), np.zeros(2, bool))
