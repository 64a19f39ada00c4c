"""Headers of JPEGs against Pillow, and what is left to it."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from PIL import Image

from resnet.images import jpeg_header
from resnet.images.checks.image_limits import LIMITS


def test_headers_that_only_pillow_reads_are_left_to_it(jpegs: dict[str, bytes], encode: Callable[..., bytes]):
    data = jpegs["4:2:0"]
    frame = data.index(b"\xff\xc0")
    assert jpeg_header.read_jpeg_header(data) == jpeg_header.JpegHeader(203, 301, frame, 2)
    others = {
        "CMYK": encode(Image.new("CMYK", (8, 8))),
        "12 bits": data[: frame + 4] + b"\x0c" + data[frame + 5 :],
        "arithmetic": data[:frame] + b"\xff\xc9" + data[frame + 2 :],
        "no rows": data[: frame + 5] + b"\0\0" + data[frame + 7 :],
        "no end": data[:-2],
        "no scan": data[: data.index(b"\xff\xda")] + b"\xff\xda\xff\xd9",
        "no frame": data[:frame] + data[data.index(b"\xff\xda") :],
        "PNG": encode(Image.new("RGB", (8, 8)), "PNG"),
        "nothing": b"",
    }
    for what, other in others.items():
        assert jpeg_header.read_jpeg_header(other) is None, what
    assert all(jpeg_header.read_jpeg_header(data[:n]) is None for n in range(len(data) - 1))


def test_size_sampling_and_orientation_are_those_that_pillow_reads(jpegs: dict[str, bytes]):
    for name, data in jpegs.items():
        image: Any = Image.open(io.BytesIO(data))
        header = jpeg_header.read_jpeg_header(data)
        assert header is not None, name
        assert (header.width, header.height) == image.size, name
        assert header.sampling == max(rows for _, _, rows, _ in image.layer), name
        assert header.orientation == image.getexif().get(0x0112, 1), name
        assert data[header.frame : header.frame + 2] in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2"), name
        assert jpeg_header.read_jpeg_header(memoryview(data)) == header, name
        assert jpeg_header.read_jpeg_header(data + bytes(100)) == header, "what follows the end is no matter"


def test_fill_bytes_are_passed_over_and_what_is_above_a_limit_is_left(jpegs: dict[str, bytes]):
    data = jpegs["progressive"]
    header = jpeg_header.read_jpeg_header(data)
    assert header is not None
    filled = jpeg_header.read_jpeg_header(data[:2] + b"\xff" * 3 + data[2:])
    assert filled == replace(header, frame=header.frame + 3)
    pixels = header.height * header.width
    assert jpeg_header.read_jpeg_header(data, replace(LIMITS, pixels=pixels)) == header
    for limits in (replace(LIMITS, pixels=pixels - 1), replace(LIMITS, scans=1), replace(LIMITS, parts=3)):
        assert jpeg_header.read_jpeg_header(data, limits) is None, limits
