"""EXIF orientation 1 to 8: every way from bytes to pixels gives the upright picture."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from resnet.evaluation.views import PROTOCOLS, views
from resnet.images import image_orientation, jpeg_region
from resnet.images.crops import evaluation_crops, training_crops
from resnet.images.decode import decode, decode_noting
from resnet.recipes.named import recipe

HERE = [name for name in jpeg_region.ENGINES if jpeg_region.engine(name)]
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "TIFF": {},
}


@pytest.fixture(scope="module")
def upright(photograph: Callable[..., np.ndarray]) -> np.ndarray:
    return photograph(11, 120, 168)


def turned(upright: np.ndarray, orientation: int, kind: str = "JPEG", **options: Any) -> bytes:
    """The picture as a camera stores it that was held so."""
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = image_orientation.upright(upright, back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, kind, exif=exif, **KINDS[kind], **options)
    return stream.getvalue()


def apart(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_image_is_pillows_upright(kind: str, orientation: int, upright: np.ndarray):
    data = turned(upright, orientation, kind)
    pillows = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    pixels, noted = decode_noting(data)
    assert np.array_equal(pixels, np.asarray(pillows))
    assert np.array_equal(decode(memoryview(data)), pixels)
    assert noted == orientation
    assert apart(pixels, upright) < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("name", HERE)
def test_training_crops_are_those_of_the_upright_image(
    name: str, options: dict[str, Any], orientation: int, upright: np.ndarray
):
    """The same draws give the same part of the picture, however it is stored; within the noise of JPEG."""
    engine = jpeg_region.engine(name)
    data, plain = turned(upright, orientation, **options), turned(upright, 1, **options)
    for seed in range(6):
        rngs = [np.random.default_rng(seed) for _ in range(4)]
        ways = [
            (training_crops.random_resized_crop, {"size": 48, "flip": True, "engine": engine}),
            (training_crops.scale_jitter_crop, {"size": 48, "shorter_side": (60, 130), "flip": True, "engine": engine}),
        ]
        for i, (crop, how) in enumerate(ways):
            got = crop(data, rngs[2 * i], **how)
            assert apart(got, crop(plain, rngs[2 * i + 1], **how)) < 3
        cuts = [training_crops.cut_resized(d, np.random.default_rng(seed), flip=True) for d in (data, plain, data)]
        outs = np.zeros((3, 48, 48, 3), np.uint8)
        assert training_crops.make_all(cuts, 48, list(outs), engine) == []
        assert np.array_equal(outs[0], outs[2])
        assert np.array_equal(outs[0], training_crops.make(cuts[0], 48, engine))
        assert apart(outs[0], outs[1]) < 3


def undecodable(*_: object) -> np.ndarray:
    raise jpeg_region.Undecodable("as if the fast way failed")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_that_the_fast_way_cannot_decode_is_cut_alike(orientation: int, upright: np.ndarray):
    """Pillow's pixels are then cut by the same box, in the coordinates of the file."""
    fast = jpeg_region.engine("wheels")
    assert fast is not None
    slow = replace(fast, decode=undecodable)
    data = turned(upright, orientation)
    for cut in (
        training_crops.cut_resized(data, np.random.default_rng(0), flip=True),
        training_crops.cut_jittered(data, np.random.default_rng(0), 48, (60, 70), flip=True),
    ):
        assert apart(training_crops.make(cut, 48, slow), training_crops.make(cut, 48, fast)) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", KINDS)
def test_evaluation_sees_the_upright_image(kind: str, orientation: int, upright: np.ndarray):
    data = turned(upright, orientation, kind)
    reference = Image.fromarray(decode(data))
    stream = io.BytesIO()
    reference.save(stream, "PNG")
    assert np.array_equal(
        evaluation_crops.center_crop(data, 64, 73), evaluation_crops.center_crop(stream.getvalue(), 64, 73)
    )
    policy = recipe("imagenet-resnet18").images.model_copy(update={"size": 32})
    for protocol in PROTOCOLS:
        for ours, theirs in zip(views(data, protocol, policy), views(stream.getvalue(), protocol, policy), strict=True):
            assert np.array_equal(ours, theirs)


@given(
    orientation=st.integers(1, 8),
    sides=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fractions=st.tuples(*[st.floats(0, 1)] * 4),
)
def test_a_box_of_the_upright_image_is_the_same_part_of_the_stored_one(
    orientation: int, sides: tuple[int, int], fractions: tuple[float, ...]
):
    height, width = sides
    stored = np.arange(3 * height * width, dtype=np.int64).reshape(height, width, 3)
    upright = image_orientation.upright(stored, orientation)
    tall, wide = upright.shape[:2]
    assert image_orientation.upright_size(height, width, orientation) == (tall, wide)
    top, left = int(fractions[0] * (tall - 1)), int(fractions[1] * (wide - 1))
    box = top, left, 1 + int(fractions[2] * (tall - top - 1)), 1 + int(fractions[3] * (wide - left - 1))
    y, x, h, w = (int(length) for length in image_orientation.stored_box(box, tall, wide, orientation))
    part = image_orientation.upright(stored[y : y + h, x : x + w], orientation)
    assert np.array_equal(part, upright[top : top + box[2], left : left + box[3]])


@given(st.binary(max_size=80), st.sampled_from([b"", b"Exif\0\0", b"II*\0", b"Exif\0\0MM\0*\0\0\0\x08\0\x02"]))
def test_any_note_has_an_orientation(rest: bytes, start: bytes):
    assert image_orientation.of_exif(start + rest) in range(1, 9)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "form"), [(3, "HH"), (4, "I"), (1, "BBBB")])
def test_orientation_is_read_in_both_byte_orders_and_from_any_whole_number(order: str, kind: int, form: str):
    import struct

    values = (6,) + (0,) * (len(form) - 1)
    entry = struct.pack(order + "HHI", 0x0112, kind, 1) + struct.pack(order + form, *values)
    other = struct.pack(order + "HHII", 0x010F, 2, 4, 0)
    note = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 2) + other + entry
    assert image_orientation.of_exif(b"Exif\0\0" + note) == 6
    assert image_orientation.of_exif(note) == 6


def test_imagemagicks_note_in_a_png_counts(upright: np.ndarray):
    from PIL import PngImagePlugin

    exif = Image.Exif()
    exif[0x0112] = 8
    note = exif.tobytes()
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(note):8d}\n{note.hex()}\n", zip=True)
    stream = io.BytesIO()
    Image.fromarray(upright).save(stream, "PNG", pnginfo=text)
    assert np.array_equal(decode(stream.getvalue()), image_orientation.upright(upright, 8))
