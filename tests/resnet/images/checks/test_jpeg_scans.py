"""Frames, scans and segments of JPEGs of any process, found as libjpeg finds them."""

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet.images import jpeg_header
from resnet.images.checks import jpeg_scans
from resnet.images.checks.image_limits import CorruptImage, TooMuchWork
from resnet.images.crops import evaluation_crops, training_crops
from resnet.images.decode import decode, decode_reduced, size_of

Encode = Callable[..., bytes]


WithScans = Callable[[bytes, int], bytes]


def scans_of(data: bytes) -> int:
    return sum(marker == jpeg_scans.SOS for marker, _, _ in jpeg_scans.segments(data))


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


def test_fill_bytes_before_a_marker_are_passed_over_at_once(encode: Encode):
    data = encode(Image.new("RGB", (8, 8), (9, 99, 3)))
    began = time.process_time()
    filled = decode(data[:2] + b"\xff" * 2**22 + data[2:])
    assert time.process_time() - began < 0.5  # 0.1 here; one by one in Python 0.6
    assert np.array_equal(filled, decode(data))


def test_a_frame_is_what_pillow_reads(jpegs: dict[str, bytes], progressive: bytes, encode: Encode):
    files = jpegs | {"progressive, ten scans": progressive, "CMYK": encode(Image.new("CMYK", (8, 5)))}
    for name, data in files.items():
        image: Any = Image.open(io.BytesIO(data))
        frame = jpeg_scans.read_frame(data)
        assert frame is not None, name
        assert (frame.width, frame.height, frame.components) == (*image.size, len(image.getbands())), name
        assert frame.precision == image.bits == 8
        assert frame.buffered == ("progression" in image.info), name
        assert frame.orientation == image.getexif().get(0x0112, 1), name
        assert data[frame.scan : frame.scan + 2] == b"\xff\xda", name
    assert scans_of(progressive) == 10


def test_without_its_notes_a_jpeg_is_the_same_picture(jpegs: dict[str, bytes]):
    noted = jpegs["with EXIF and comment"]
    bare = jpeg_scans.without_notes(noted)
    image: Any = Image.open(io.BytesIO(bare))
    assert not image.getexif()
    assert "comment" not in image.info
    assert "jfif" in image.info, "it tells the colours"
    assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(noted))))
    assert jpeg_scans.without_notes(bare) == bare
    assert jpeg_scans.without_notes(b"\xff\xd8 no scan") == b"\xff\xd8 no scan"


def test_what_ends_early_has_no_frame_and_raises_nothing(progressive: bytes):
    frame = jpeg_scans.read_frame(progressive)
    assert frame is not None
    assert [jpeg_scans.read_frame(progressive[:end]) for end in range(frame.scan + 4)] == [None] * (frame.scan + 4)
    assert jpeg_scans.read_frame(progressive[: frame.scan + 5]) == frame
