"""Random crops against Pillow, and their draws against torchvision's by statistics."""

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

from resnet.images import decode, jpeg_region
from resnet.images.checks import image_limits
from resnet.images.crops import mirror, training_crops

Photograph = Callable[..., np.ndarray]
Encode = Callable[..., bytes]

BILINEAR = InterpolationMode.BILINEAR
HERE = [name for name in jpeg_region.ENGINES if jpeg_region.engine(name)]


def opened(data: bytes) -> Any:  # a Pillow image; torchvision's signatures know tensors only
    return Image.open(io.BytesIO(data)).convert("RGB")


def likely_alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two samples may come from one distribution (Kolmogorov and Smirnov)."""
    return cast(Any, ks_2samp(a, b, method="asymp")).pvalue > 1e-3


def likely_even(counts: np.ndarray) -> bool:
    return cast(Any, chisquare(counts)).pvalue > 1e-3


def difference(got: np.ndarray, expected: Image.Image | np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    assert got.shape == np.asarray(expected).shape
    return float(np.abs(got.astype(int) - np.asarray(expected)).mean())


def resized_crop_by_pillow(data: bytes, rng: np.random.Generator, size: int) -> Any:
    picture = opened(data)
    box = training_crops.draw_resized_crop(rng, picture.height, picture.width, (0.08, 1), (3 / 4, 4 / 3))
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
        got = training_crops.random_resized_crop(
            files[i], np.random.default_rng(key), size, engine=jpeg_region.engine(name)
        )
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
            got = training_crops.scale_jitter_crop(data, rngs[0], size, sides, jpeg_region.engine(name))
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
        data, engine = path.read_bytes(), jpeg_region.engine(name)
        rngs = [np.random.default_rng(i) for _ in range(4)]
        got = training_crops.random_resized_crop(data, rngs[0], 224, engine=engine)
        apart["random resized"].append(difference(got, resized_crop_by_pillow(data, rngs[1], 224)))
        got = training_crops.scale_jitter_crop(data, rngs[2], 224, engine=engine)
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
        assert (
            difference(training_crops.random_resized_crop(png, rngs[0], 64), resized_crop_by_pillow(png, rngs[1], 64))
            < 0.5
        )
        assert np.array_equal(
            training_crops.scale_jitter_crop(png, rngs[2], 64, (73, 137)),
            training_crops.scale_jitter_crop(bmp, rngs[3], 64, (73, 137)),
        )


def test_equal_generators_give_equal_crops_and_others_do_not(files: list[bytes]):
    for crop in (training_crops.random_resized_crop, training_crops.scale_jitter_crop):
        seen = {}
        for seed in [*range(5), *range(5)]:
            rng = np.random.default_rng((seed, 3, 7))
            pixels = crop(files[0], rng, 224, flip=True).tobytes()
            assert seen.setdefault(seed, pixels) == pixels
        assert len(set(seen.values())) == 5


@pytest.mark.parametrize("name", HERE)
def test_several_at_once_of_every_kind_are_those_one_by_one(
    name: str, files: list[bytes], jpegs: dict[str, bytes], encode: Callable[..., bytes]
):
    png = encode(Image.fromarray(decode.decode(files[0])), "PNG")
    broken = jpegs["4:2:0"].replace(b"\xff\xdb", b"\xff\xfe")  # its tables are comments: found when it is decoded
    data = [png, files[1], broken, jpegs["progressive"], png]
    for cut in (training_crops.cut_resized, lambda d, rng: training_crops.cut_jittered(d, rng, 96, (100, 150))):
        cuts = [cut(d, np.random.default_rng(i)) for i, d in enumerate(data)]
        outs = np.zeros((5, 96, 96, 3), np.uint8)
        engine = jpeg_region.engine(name)
        assert training_crops.make_all(cuts, 96, list(outs), engine) == [2]
        for i in (0, 1, 3, 4):
            assert np.array_equal(outs[i], training_crops.make(cuts[i], 96, engine))
        with pytest.raises(image_limits.CorruptImage):
            training_crops.make(cuts[2], 96, engine)


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
    for crop in (training_crops.random_resized_crop, training_crops.scale_jitter_crop):
        try:
            pixels = crop(bytes(damaged), rng, 224)
        except image_limits.CorruptImage:
            continue
        assert pixels.shape == (224, 224, 3)
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (100, 90), (60, 900)])
@pytest.mark.parametrize(("area", "ratio"), [((0.08, 1), (3 / 4, 4 / 3)), ((0.5, 0.6), (0.9, 2))])
def test_resized_crops_are_drawn_as_torchvision_draws_them(
    height: int, width: int, area: tuple[float, float], ratio: tuple[float, float]
):
    n, rng = 2000, np.random.default_rng(1)
    picture: Any = Image.new("RGB", (width, height))
    torch.manual_seed(1)
    theirs = np.array([transforms.RandomResizedCrop.get_params(picture, list(area), list(ratio)) for _ in range(n)])
    ours = np.array([training_crops.draw_resized_crop(rng, height, width, area, ratio) for _ in range(n)])
    for name, a, b in zip(("top", "left", "height", "width"), ours.T, theirs.T, strict=True):
        assert likely_alike(a, b), name
    assert likely_alike(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])
    assert likely_alike(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 600), width=st.integers(1, 600), seed=st.integers(0, 99))
def test_resized_crops_lie_inside(height: int, width: int, seed: int):
    top, left, tall, wide = training_crops.draw_resized_crop(
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
        box = training_crops.draw_resized_crop(np.random.default_rng(0), height, width, (1.5, 1.5), ratio)
        assert box == transforms.RandomResizedCrop.get_params(picture, [1.5, 1.5], list(ratio))


def test_scale_jitter_draws_every_side_and_every_place_alike():
    rng, n = np.random.default_rng(0), 6000
    boxes = np.array([training_crops.draw_scale_jitter(rng, 300, 400, 224, (256, 259)) for _ in range(n)])
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


@pytest.mark.parametrize("name", HERE)
def test_a_crop_that_is_mirrored_at_once_is_the_mirror_image_of_the_crop(name: str, files: list[bytes]):
    engine = jpeg_region.engine(name)
    for crop in (training_crops.random_resized_crop, training_crops.scale_jitter_crop):
        for seed in range(6):
            one, two = (np.random.default_rng(seed) for _ in range(2))
            out = np.empty((64, 64, 3), np.uint8)
            given = crop(files[seed % len(files)], one, 64, engine=engine, flip=True, out=out)
            assert given is out
            pixels = crop(files[seed % len(files)], two, 64, engine=engine)
            assert np.array_equal(out, mirror.mirrored(pixels) if mirror.draw_flip(two) else pixels)
