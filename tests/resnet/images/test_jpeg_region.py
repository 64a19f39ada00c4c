"""Regions against Pillow's whole image, engine by engine: the decoding exact, the resize within a grey level."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet.images import jpeg_header, jpeg_region

HERE = [name for name in jpeg_region.ENGINES if jpeg_region.engine(name)]


def by_pillow(data: bytes, scale: int = 1) -> np.ndarray:
    """The whole picture, shrunk while it is decoded."""
    image = Image.open(io.BytesIO(data))
    if scale > 1:
        image.draft(image.mode, (-(-image.width // scale), -(-image.height // scale)))
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", jpeg_region.ENGINES)
@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_a_decoded_region_is_that_of_the_whole(name: str, draw: st.DataObject, jpegs: dict[str, bytes]):
    engine = jpeg_region.engine(name)
    if engine is None:
        pytest.skip(f"no engine {name} here: {name} needs a C compiler and libjpeg-turbo's headers")
    kind, scale = draw.draw(st.sampled_from(sorted(jpegs))), draw.draw(st.sampled_from([1, 1, 2, 4, 8]))
    header = jpeg_header.read_jpeg_header(jpegs[kind])
    assert header is not None
    whole = by_pillow(jpegs[kind], scale)
    rows, columns = -(-header.height // scale), -(-header.width // scale)
    if whole.shape[:2] != (rows, columns):  # Pillow shrinks less where a side would get too small
        return
    top, left = draw.draw(st.integers(0, rows - 1)), draw.draw(st.integers(0, columns - 1))
    height, width = draw.draw(st.integers(1, rows - top)), draw.draw(st.integers(1, columns - left))
    pixels = engine.decode(jpegs[kind], header, scale, top, left, height, width)
    assert np.array_equal(pixels[..., :3], whole[top : top + height, left : left + width])


@pytest.mark.parametrize("name", HERE)
@settings(max_examples=100, deadline=None)
@given(draw=st.data())
def test_the_resize_is_pillows(name: str, draw: st.DataObject, photograph: Callable[..., np.ndarray]):
    engine = jpeg_region.engine(name)
    assert engine is not None
    rows, columns = draw.draw(st.integers(1, 160)), draw.draw(st.integers(1, 160))
    picture = photograph(7, rows, columns)
    height, width = draw.draw(st.integers(1, 90)), draw.draw(st.integers(1, 90))
    box: jpeg_region.Box = (0, 0, rows, columns)
    if draw.draw(st.booleans()):
        fractions = st.floats(0, 1, allow_subnormal=False)
        tall, wide = (max(0.5, draw.draw(fractions) * side) for side in (rows, columns))
        box = (draw.draw(fractions) * (rows - tall), draw.draw(fractions) * (columns - wide), tall, wide)
    corners = (box[1], box[0], min(columns, box[1] + box[3]), min(rows, box[0] + box[2]))
    expected = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR, corners)
    difference = engine.resize(picture, box, height, width).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("name", HERE)
@settings(max_examples=300, deadline=None)
@given(draw=st.data())
def test_a_window_of_the_whole_resized_is_pillows_bit_for_bit(name: str, draw: st.DataObject):
    engine = jpeg_region.engine(name)
    assert engine is not None
    rows, columns, tall, wide = (draw.draw(st.integers(1, 160)) for _ in range(4))
    top, left = draw.draw(st.integers(0, tall - 1)), draw.draw(st.integers(0, wide - 1))
    height, width = draw.draw(st.integers(1, tall - top)), draw.draw(st.integers(1, wide - left))
    rng = np.random.default_rng(draw.draw(st.integers(0, 2**16)))
    noise = rng.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    picture = np.where(noise < 128, 0, 255).astype(np.uint8) if draw.draw(st.booleans()) else noise
    if draw.draw(st.booleans()):
        picture = picture[:, ::-1]  # not contiguous
    whole = np.asarray(Image.fromarray(picture).resize((wide, tall), Image.Resampling.BILINEAR))
    window = engine.resize_window(picture, tall, wide, top, left, height, width)
    assert np.array_equal(window, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("name", HERE)
def test_the_resize_of_extremes(name: str):
    engine = jpeg_region.engine(name)
    assert engine is not None
    for level in (0, 1, 254, 255):  # a plain picture stays plain: no overflow, no drift of the weights
        plain = np.full((333, 517, 3), level, np.uint8)
        for height, width in ((224, 224), (1, 1), (500, 3), (3, 2000)):
            assert (engine.resize(plain, (0, 0, 333, 517), height, width) == level).all()
    checks = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    shrunk = engine.resize(checks, (0, 0, 256, 256), 100, 100)
    assert np.ptp(shrunk[2:-2, 2:-2].astype(int)) < 60, "a pattern finer than the result must turn grey, not alias"


@pytest.mark.parametrize("name", HERE)
def test_views_of_larger_arrays_resize_as_their_copies(name: str, photograph: Callable[..., np.ndarray]):
    engine = jpeg_region.engine(name)
    assert engine is not None
    picture = photograph(8, 90, 120)
    for view in (picture[10:70, 20:100], picture[::2, ::3], picture[:, ::-1], np.asfortranarray(picture)):
        box: jpeg_region.Box = (0, 0, *view.shape[:2])
        assert np.array_equal(engine.resize(view, box, 50, 60), engine.resize(view.copy(), box, 50, 60))


@pytest.mark.parametrize("name", HERE)
@settings(max_examples=200, deadline=None)
@given(draw=st.data())
def test_damage_is_undecodable_or_decodes_to_the_right_shape(name: str, draw: st.DataObject, jpegs: dict[str, bytes]):
    engine = jpeg_region.engine(name)
    assert engine is not None
    damaged = bytearray(
        jpegs[draw.draw(st.sampled_from(["4:2:0", "4:4:4", "progressive", "restart rows", "grayscale"]))]
    )
    reach = draw.draw(st.sampled_from([700, len(damaged)]))
    for at, byte in draw.draw(st.lists(st.tuples(st.integers(2, reach - 1), st.integers(0, 255)), max_size=8)):
        damaged[at % len(damaged)] = byte
    header = jpeg_header.read_jpeg_header(bytes(damaged))
    if header is None or header.height * header.width > 2**24:
        return
    box: jpeg_region.Box = (header.height // 4, header.width // 4, header.height / 2, header.width / 2)
    for bleed in (False, True):
        try:
            pixels = jpeg_region.crop_and_resize(jpeg_region.Cut(bytes(damaged), header, box, bleed), 16, engine)
        except jpeg_region.Undecodable:
            continue
        assert pixels.shape == (16, 16, 3)


@pytest.mark.parametrize("name", HERE)
@settings(max_examples=60, deadline=None)
@given(draw=st.data())
def test_several_at_once_are_the_same_pixels_and_the_bad_ones_are_named(
    name: str, draw: st.DataObject, jpegs: dict[str, bytes]
):
    engine = jpeg_region.engine(name)
    assert engine is not None
    cuts, size = [], draw.draw(st.integers(1, 40))
    for kind in draw.draw(st.lists(st.sampled_from(sorted(jpegs)), max_size=9)):
        header = jpeg_header.read_jpeg_header(jpegs[kind])
        assert header is not None
        sides = st.floats(0.05, 1)
        height, width = (draw.draw(sides) * length for length in (header.height, header.width))
        top, left = draw.draw(sides) * (header.height - height), draw.draw(sides) * (header.width - width)
        data = jpegs[kind]
        if draw.draw(st.integers(0, 3)) == 0:
            data = data[:40] + b"\xff\xd9"  # its header is known, and nothing is behind it
        cuts.append(
            jpeg_region.Cut(
                data, header, (top, left, height, width), draw.draw(st.booleans()), draw.draw(st.booleans())
            )
        )
    outs = np.zeros((len(cuts), size, size, 3), np.uint8)
    undecodable = jpeg_region.crop_and_resize_all(cuts, size, engine, list(outs))
    for i, cut in enumerate(cuts):
        if i in undecodable:
            with pytest.raises(jpeg_region.Undecodable):
                jpeg_region.crop_and_resize(cut, size, engine)
        else:
            np.testing.assert_array_equal(outs[i], jpeg_region.crop_and_resize(cut, size, engine))


def test_an_unknown_engine_is_named():
    with pytest.raises(ValueError, match="libjpeg, c, wheels, got 'gpu'"):
        jpeg_region.engine("gpu")


def chosen(home: Path, **environment: str) -> str:
    """Name of the engine that a fresh process chooses."""
    script = "from resnet.images import jpeg_region as region; print(region.best().name)"
    given = {**os.environ, "RESNET_HOME": str(home), "TMPDIR": str(home), **environment}
    done = subprocess.run([sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_fastest_engine_that_is_here_is_chosen_and_the_wheels_are_always_here(tmp_path: Path):
    assert chosen(tmp_path) == HERE[0]
    assert chosen(tmp_path / "none", CC="/nowhere/cc") == "wheels"
