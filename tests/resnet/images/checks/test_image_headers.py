"""Headers are read before Pillow is given a file: sizes and tags as Pillow finds them, and parts are counted."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet.images.checks import image_headers
from resnet.images.checks.image_limits import LIMITS, CorruptImage, TooLarge, TooMuchWork
from resnet.images.decode import decode

Encode = Callable[..., bytes]


def gif_of_comments(blocks: int) -> bytes:
    gif = io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    data = gif.getvalue()
    at = data.index(b"\x2c")
    return data[:at] + b"\x21\xfe" + b"\x01x" * blocks + b"\0" + data[at:]


def png_of_chunks(chunks: int) -> bytes:
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "PNG")
    data = png.getvalue()
    empty = struct.pack(">I4sI", 0, b"teSt", zlib.crc32(b"teSt"))
    return data[:33] + empty * chunks + data[33:]


def tiff_of(entries: list[tuple[int, int, int, int]], behind: bytes = b"") -> bytes:
    """(tag, type, count, value): one directory."""
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + b"\0\0\0\0" + behind


def jpeg_of_segments(segments: int, encode: Encode) -> bytes:
    data = encode(Image.new("CMYK", (8, 8)))
    return data[:2] + b"\xff\xec\0\x02" * segments + data[2:]


@pytest.mark.parametrize("extra", [0, 100_000])
def test_parts_are_counted_before_pillow_reads_them(extra: int, encode: Encode):
    tiles = [(256, 3, 1, 300), (257, 3, 1, 300), (322, 3, 1, 1), (323, 3, 1, 1), (324, 4, 90_000, 8)]
    same = [(1000 + i, 1, 2**20, 8) for i in range(1000)]
    size = [(256, 3, 1, 300), (257, 3, 1, 300)]
    bombs = {
        "blocks": gif_of_comments(extra),
        "chunks": png_of_chunks(extra),
        "segments": jpeg_of_segments(extra, encode),
        "strips or tiles": tiff_of(tiles, bytes(360_000)),
        "tags of at most": tiff_of([*size, *same], bytes(2**20)),
    }
    for what, data in bombs.items():
        if extra or what.startswith(("strips", "tags")):
            began = time.process_time()
            with pytest.raises(TooMuchWork, match=what):
                decode(data)
            assert time.process_time() - began < 0.5, what
        else:
            assert decode(data).shape[2] == 3


KINDS = {"JPEG": "JPEG", "PNG": "PNG", "WEBP": "WebP", "GIF": "GIF", "BMP": "BMP", "TIFF": "TIFF", "PPM": "PNM",
         "JPEG2000": "JPEG 2000", "ICO": "ICO"}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_says_kind_and_size_and_may_be_cut_anywhere(kind: str, encode: Encode):
    data = encode(Image.new("RGB", (48, 48), (9, 99, 3)), kind)
    assert image_headers.check_header(data).name == KINDS[kind]
    assert image_headers.check_header(data, replace(LIMITS, pixels=48 * 48)).name == KINDS[kind]
    with pytest.raises(TooLarge, match="at most 2,303 pixels, got 48 x 48"):
        image_headers.check_header(data, replace(LIMITS, pixels=48 * 48 - 1))
    for end in range(0, len(data), max(1, len(data) // 300)):
        try:
            assert image_headers.check_header(data[:end]).name == KINDS[kind]
        except CorruptImage:
            continue


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("options", [{}, {"big_tiff": True}, {"compression": "tiff_lzw"}], ids=str)
def test_tags_of_a_tiff_are_those_that_pillow_reads(encode: Encode, options: dict[str, object], orientation: int):
    exif = Image.Exif()
    exif[image_headers.ORIENTATION] = orientation
    data = encode(np.arange(48, dtype=np.uint8).reshape(6, 8), "TIFF", exif=exif, **options)
    image: Any = Image.open(io.BytesIO(data))
    found = dict(image_headers.tiff_tags(data))
    assert set(found) == set(image.tag_v2)
    assert image_headers.tiff_orientation(data) == orientation
    counts = {tag: count for tag, (kind, count, _) in found.items() if kind in (3, 4, 16)}
    assert counts == {tag: np.size(image.tag_v2[tag]) for tag in counts}


def test_the_byte_order_of_a_tiff_is_its_own():
    little = tiff_of([(256, 3, 1, 300), (257, 3, 1, 200), (274, 3, 1, 6)])
    big = b"MM\0*" + struct.pack(">IH", 8, 3)
    big += b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in ((256, 300), (257, 200), (274, 6)))
    for data in (little, big + bytes(4)):
        assert image_headers.tiff_orientation(data) == 6
        with pytest.raises(TooLarge, match="got 300 x 200"):
            image_headers.check_header(data, replace(LIMITS, pixels=59_999))
    assert image_headers.tiff_orientation(b"II*\0\xff") == 1, "cut short"
