"""Portable bitmaps, greymaps and pixmaps against Pillow's own reader."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet.decoding import CorruptImage, TooLarge, decode, size_of


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_every_magic_and_maximum_is_pillows(draw: st.DataObject):
    magic = draw.draw(st.integers(1, 6))
    height, width = draw.draw(st.integers(1, 9)), draw.draw(st.integers(1, 20))
    maximum = 1 if magic in (1, 4) else draw.draw(st.sampled_from([1, 2, 15, 100, 254, 255]))
    if magic == 6 and draw.draw(st.booleans()):
        maximum = draw.draw(st.sampled_from([256, 1000, 4095, 65535]))
    count = height * width * (3 if magic in (3, 6) else 1)
    rng = np.random.default_rng(draw.draw(st.integers(0, 999)))
    levels = rng.integers(0, maximum + 1, count)
    gap = draw.draw(st.sampled_from([b" ", b"\n", b"\t \r\n", b"\n# a comment 1 2\n"]))
    head = b"P%d" % magic + gap + b"%d" % width + gap + b"%d" % height
    head += b"\n" if magic in (1, 4) else gap + b"%d" % maximum + b"\n"
    if magic == 4:
        body = np.packbits(levels.reshape(height, width).astype(np.uint8), axis=1).tobytes()
    elif magic > 4:
        body = levels.astype(np.uint8 if maximum < 256 else ">u2").tobytes()
    else:
        body = (b"" if magic == 1 else b" ").join(b"%d" % level for level in levels) + b"\n"
    assert np.array_equal(decode(head + body), by_pillow(head + body))
    assert size_of(head + body) == (height, width)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"P5 3 3 255 abc", "truncated"),
        (b"P5 3 x 255 abc", "width and height"),
        (b"P5 3 3 0 abcabcabc", "1 to 65535"),
        (b"P5 3 3 65536 abcabcabc", "1 to 65535"),
        (b"P2 2 1 9 3 10 ", "up to its 9, got 10"),
        (b"P2 2 1 9 3 -1 ", "other characters"),
        (b"P2 2 1 9 3 99999999999999999999999 ", "up to its 9"),
        (b"P2 2 2 9 3 ", "truncated"),
        (b"P1 2 2 0 1 0 3 ", "other digits"),
        (b"P1 2 2 0 1 0 ", "truncated"),
        (b"P5 0 3 255 ", "must have pixels"),
    ],
)
def test_damage_is_told(data: bytes, words: str):
    with pytest.raises(CorruptImage, match=words):
        decode(data)


def test_a_huge_one_is_refused_before_it_is_read():
    with pytest.raises(TooLarge, match="99999 x 99999"):
        decode(b"P5 99999 99999 255 ")
