"""Limits are exact at their borders, hold before anything is decoded, and are told with the numbers."""

import io
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet.images import jpeg_header
from resnet.images.checks import jpeg_scans
from resnet.images.checks.image_limits import LIMITS, CorruptImage, Limits, TooLarge, TooMuchWork
from resnet.images.crops import evaluation_crops, training_crops
from resnet.images.decode import decode, decode_reduced, size_of

Encode = Callable[..., bytes]
WithScans = Callable[[bytes, int], bytes]


@pytest.fixture(scope="module")
def progressive(photograph: Callable[..., np.ndarray], encode: Encode) -> bytes:
    return encode(photograph(0, 90, 120), progressive=True)


def scans_of(data: bytes) -> int:
    return sum(marker == jpeg_scans.SOS for marker, _, _ in jpeg_scans.segments(data))


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
    assert scans_of(progressive) == 10
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


def test_many_scans_within_the_limit_are_pillows_picture(progressive: bytes, with_scans: WithScans):
    data = with_scans(progressive, 50)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("scans", [200, 20_000])
def test_repeated_scans_are_refused_at_once_by_every_way(
    scans: int, progressive: bytes, with_scans: WithScans, encode: Encode
):
    grey = encode(Image.new("L", (3000, 3000), 9), progressive=True)
    cmyk = encode(Image.new("CMYK", (30, 30)), progressive=True)
    for data in (with_scans(progressive, scans), with_scans(grey, scans), with_scans(cmyk, scans)):
        ways: dict[str, Callable[[], Any]] = {
            "decode": lambda data=data: decode(data),
            "size": lambda data=data: size_of(data),
            "centre": lambda data=data: evaluation_crops.center_crop(data, 32, 40),
            "resized": lambda data=data: training_crops.cut_resized(data, np.random.default_rng(0)),
            "jittered": lambda data=data: training_crops.cut_jittered(data, np.random.default_rng(0), 32, (40, 50)),
            "reduced": lambda data=data: decode_reduced(data, 32),
        }
        for name, way in ways.items():
            if name == "reduced" and data[:400] == with_scans(cmyk, scans)[:400]:
                continue  # is no kind of its
            began = time.process_time()
            with pytest.raises(TooMuchWork, match="at most 100 scans"):
                way()
            assert time.process_time() - began < 0.1, name  # 0.5 ms here
        assert jpeg_header.read_jpeg_header(data) is None


def test_baseline_scans_of_one_component_each_are_counted_too(encode: Encode):
    """libjpeg keeps all coefficients of a JPEG whose first scan lacks a component, whatever its process is."""
    grey = encode(Image.new("L", (64, 64), 77))
    frame, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    three = b"\xff\xc0\0\x11\x08\0\x40\0\x40\x03\x01\x11\0\x02\x11\0\x03\x11\0"
    body = grey[scan + 10 : -2]
    first = [b"\xff\xda\0\x08\x01" + bytes([c]) + b"\0\0\x3f\0" + body for c in (1, 2, 3)]
    data = grey[:frame] + three + grey[frame + 13 : scan] + b"".join(first) + b"\xff\xd9"
    assert decode(data).shape == (64, 64, 3)
    bomb = data[:-2] + first[2] * 98 + b"\xff\xd9"
    with pytest.raises(TooMuchWork, match="at most 100 scans"):
        decode(bomb)


def test_scans_cannot_be_hidden_from_the_count(progressive: bytes, with_scans: WithScans):
    bomb = with_scans(progressive, 101)
    scan = bomb.index(b"\xff\xda")
    for hidden in (b"\xff\xd9", b"\xff\xfe\0\x04\xff\xd9", b"\0\0\xff\0\xff\xff\xff", b"\xff\xd0\xff\x01"):
        # an end marker in a comment, fill bytes, stuffing and restarts before a marker; a true end ends the image
        for at in (scan, bomb.rindex(b"\xff\xda")):
            data = bomb[:at] + hidden + bomb[at:]
            try:
                decode(data)
            except TooMuchWork:
                continue
            except CorruptImage:
                assert hidden != b"\xff\xfe\0\x04\xff\xd9"
                continue
            assert scans_of(data) <= 100


# --- Parts that Pillow handles one by one ---


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


def test_fill_bytes_before_a_marker_are_passed_over_at_once(encode: Encode):
    data = encode(Image.new("RGB", (8, 8), (9, 99, 3)))
    began = time.process_time()
    filled = decode(data[:2] + b"\xff" * 2**22 + data[2:])
    assert time.process_time() - began < 0.5  # 0.1 here; one by one in Python 0.6
    assert np.array_equal(filled, decode(data))


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
