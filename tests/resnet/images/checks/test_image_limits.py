"""Limits are exact at their borders, hold before anything is decoded, and are told with the numbers."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from resnet.images.checks import jpeg_scans
from resnet.images.checks.image_limits import LIMITS, Limits, TooLarge, TooMuchWork
from resnet.images.decode import decode, decode_reduced, size_of

Encode = Callable[..., bytes]
WithScans = Callable[[bytes, int], bytes]


def test_a_limit_must_be_positive():
    with pytest.raises(ValueError, match="scans must be at least 1, got 0"):
        Limits(scans=0)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO"])
def test_bytes_and_pixels_are_limits_of_every_kind(kind: str, photograph: Callable[..., np.ndarray], encode: Encode):
    data = encode(photograph(1, 64, 64), kind)
    for good in (replace(LIMITS, pixels=64 * 64), replace(LIMITS, bytes=len(data))):
        assert decode(data, limits=good).shape == (64, 64, 3)
        assert size_of(data, good) == (64, 64)
    for function in (decode, size_of):
        with pytest.raises(TooLarge, match=f"at most {len(data) - 1:,} bytes, got {len(data):,}"):
            function(data, limits=replace(LIMITS, bytes=len(data) - 1))
        with pytest.raises(TooLarge, match="at most 4,095 pixels, got 64 x 64"):
            function(data, limits=replace(LIMITS, pixels=64 * 64 - 1))


def test_scans_and_work_are_exact_at_their_borders(progressive: bytes, with_scans: WithScans):
    size = 90 * 120
    for scans in (10, 99, 100):
        assert decode(with_scans(progressive, scans)).shape == (90, 120, 3)
    with pytest.raises(TooMuchWork, match="at most 100 scans, got more"):
        decode(with_scans(progressive, 101))
    assert decode(progressive, limits=replace(LIMITS, pixel_scans=10 * size)).shape == (90, 120, 3)
    with pytest.raises(TooMuchWork, match=r"at most 107,999 pixels x scans, got 10,800 pixels x 10 scans"):
        decode(progressive, limits=replace(LIMITS, pixel_scans=10 * size - 1))
    work = 10 * len(progressive)
    assert decode(progressive, limits=replace(LIMITS, byte_scans=work)).shape == (90, 120, 3)
    with pytest.raises(TooMuchWork, match=f"at most {work - 1:,} bytes x scans"):
        decode(progressive, limits=replace(LIMITS, byte_scans=work - 1))


# --- Above the limit of pixels, scaled down while it is decoded ---


def test_a_larger_jpeg_is_scaled_down_while_it_is_decoded(photograph: Callable[..., np.ndarray], encode: Encode):
    pixels = photograph(3, 400, 640)
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"progressive": True}, {"exif": exif}):
        data = encode(pixels, quality=95, **options)
        limits = replace(LIMITS, pixels=100_000, reduced_pixels=256_000, reduced_buffered_pixels=256_000)
        with pytest.raises(TooLarge, match="at most 100,000 pixels, got 640 x 400"):
            decode(data, limits=limits)
        small = decode_reduced(data, 90, limits)
        assert small.shape == ((160, 100, 3) if "exif" in options else (100, 160, 3))
        whole = Image.fromarray(decode(data)).resize((small.shape[1], small.shape[0]), Image.Resampling.BOX)
        assert np.abs(small.astype(int) - np.asarray(whole)).mean() < 3
        for change in ({"reduced_pixels": 255_999}, {"reduced_buffered_pixels": 255_999}):
            if ("progressive" in options) == ("reduced_buffered_pixels" in change):
                with pytest.raises(TooLarge, match="at most 255,999 pixels to be scaled down, got 640 x 400"):
                    decode_reduced(data, 90, replace(limits, **change))
    with pytest.raises(TooLarge, match=r"must be a JPEG .* got PNG"):
        decode_reduced(encode(pixels, "PNG"), 90)


def tall_grey_jpeg(rows: int, encode: Encode) -> bytes:
    """16,384 columns and rows x 8 rows of one grey, made of one row of blocks between restart markers."""
    data = encode(Image.new("L", (16384, 16), 99), restart_marker_rows=1)
    scan = data.index(b"\xff\xda") + 10
    row = data[scan : data.index(b"\xff\xd0", scan)]
    body = b"".join(row + bytes([0xFF, 0xD0 + i % 8]) for i in range(rows))[:-2]
    frame = data.index(b"\xff\xc0") + 5
    head = data[:frame] + (8 * rows).to_bytes(2, "big") + data[frame + 2 : scan]
    return head + body + b"\xff\xd9"


def test_memory_of_a_larger_jpeg_is_that_of_the_reduced_one(encode: Encode):
    data = tall_grey_jpeg(2000, encode)  # 262 million pixels, 786 MB as RGB
    assert jpeg_scans.read_frame(data)[2:4] == (16000, 16384)  # pyright: ignore[reportOptionalSubscript]
    script = (
        "import sys, resource\n"
        "from resnet.images.decode import decode_reduced\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "pixels = decode_reduced(sys.stdin.buffer.read(), 256)\n"
        "print(*pixels.shape, int(pixels.min()), int(pixels.max()))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    shape, grown = done.stdout.decode().splitlines()
    assert shape == "2000 2048 3 99 99"
    assert int(grown) < 60  # MiB: 12 of the result, and the file
