"""Decoding against Pillow, bit for bit; every odd kind of image; nothing but CorruptImage for bytes that are none."""

import io
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from resnet.decoding import MAX_PIXELS, CorruptImage, TooLarge, decode, decode_noting, size_of

Encode = Callable[..., bytes]


def by_pillow(data: bytes) -> np.ndarray:
    """Upright."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def test_jpegs_equal_pillow(jpegs: dict[str, bytes]):
    for name, data in jpegs.items():
        expected = by_pillow(data)
        assert np.array_equal(decode(data), expected), name
        assert size_of(data) == decode(data, as_stored=True).shape[:2], name


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO"])
def test_other_formats_equal_pillow(kind: str, photograph: Callable[..., np.ndarray], encode: Encode):
    data = encode(photograph(1, 64, 64), kind)
    assert np.array_equal(decode(data), by_pillow(data))
    assert size_of(data) == (64, 64)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_modes_equal_pillow(mode: str, photograph: Callable[..., np.ndarray], encode: Encode):
    image = Image.fromarray(photograph(2, 50, 71)).convert(mode)
    for kind in {"CMYK": ("JPEG", "TIFF"), "YCbCr": ("JPEG", "TIFF")}.get(mode, ("PNG", "TIFF")):
        data = encode(image, kind)
        assert np.array_equal(decode(data), by_pillow(data))


def test_transparency_lies_on_white(encode: Encode):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = 0, 128, 255
    expected = np.array([[[255, 255, 255], [227, 127, 127], [200, 0, 0]]])
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        assert np.abs(decode(encode(pixels, kind, **options)) - expected).max() <= 1
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([9, 9, 9, 50, 60, 70])
    for kind in ("PNG", "GIF"):
        assert decode(encode(palette, kind, transparency=0)).tolist() == [[[255, 255, 255], [50, 60, 70]]]
    assert decode(encode(palette, "PNG", transparency=b"\x00\xff")).tolist() == [[[255, 255, 255], [50, 60, 70]]]
    gray = Image.merge("LA", [Image.new("L", (2, 1), 40), Image.fromarray(np.array([[0, 255]], np.uint8))])
    assert decode(encode(gray, "PNG")).tolist() == [[[255, 255, 255], [40, 40, 40]]]


def test_sixteen_bits_lose_the_lower_eight(encode: Encode):
    gray = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    expected = np.repeat(np.array([[0, 0, 1, 128, 255]])[..., None], 3, axis=2)
    for kind in ("PNG", "TIFF", "PPM"):
        assert np.array_equal(decode(encode(gray, kind)), expected), kind


def test_pixels_that_are_no_colours_are_refused_by_name(encode: Encode):
    with pytest.raises(CorruptImage, match="32-bit floats"):
        decode(encode(np.ones((4, 4), np.float32), "TIFF"))
    with pytest.raises(CorruptImage, match="32-bit integers"):
        decode(encode(np.full((4, 4), 70000, np.int32), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_counts(kind: str, encode: Encode):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode(data) == (255, 0, 0)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_turns_upright_everywhere_but_in_coordinates_of_the_file(
    kind: str, orientation: int, photograph: Callable[..., np.ndarray], encode: Encode
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photograph(3, 20, 30), kind, exif=exif)
    assert np.array_equal(decode(data), by_pillow(data))
    assert np.array_equal(decode(data, as_stored=True), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert decode_noting(data).orientation == orientation


def test_broken_exif_means_upright(photograph: Callable[..., np.ndarray], encode: Encode):
    for note in (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"):
        data = encode(photograph(3, 20, 30))
        data = data[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + data[2:]
        assert np.array_equal(decode(data, as_stored=True), decode(data))


def test_no_bytes_and_no_image_are_refused():
    for data in (b"", b"\0", b"GIF8", b"hello, world", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(1000)):
        with pytest.raises(CorruptImage, match="must"):
            decode(data)
        with pytest.raises(CorruptImage, match="must"):
            size_of(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncation_is_refused_at_any_length(kind: str, photograph: Callable[..., np.ndarray], encode: Encode):
    data = encode(photograph(4, 60, 90), kind)
    for keep in np.linspace(1, 0.97 * len(data), 60).astype(int):
        with pytest.raises(CorruptImage):
            decode(data[:keep])


def test_bytes_after_the_end_are_ignored_and_a_missing_end_is_not(jpegs: dict[str, bytes]):
    for name in ("4:2:0", "progressive", "restart rows"):
        data = jpegs[name]
        assert np.array_equal(decode(data + bytes(100)), by_pillow(data)), name
        with pytest.raises(CorruptImage, match="truncated"):
            decode(data[:-2])


def png_that_claims(side: int, encode: Encode) -> bytes:
    png = encode(np.zeros((4, 4, 3), np.uint8), "PNG")
    header = b"IHDR" + 2 * side.to_bytes(4, "big") + png[24:29]
    return png[:12] + header + zlib.crc32(header).to_bytes(4, "big") + png[33:]


def test_bombs_are_refused_before_they_take_memory(jpegs: dict[str, bytes], encode: Encode):
    frame = jpegs["4:2:0"].index(b"\xff\xc0") + 5
    jpeg = jpegs["4:2:0"][:frame] + b"\xff\xff\xff\xff" + jpegs["4:2:0"][frame + 4 :]
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "from resnet.decoding import TooLarge, decode\n"
        "try: decode(sys.stdin.buffer.read())\n"
        "except TooLarge as error: print(error)"
    )
    for data in (jpeg, png_that_claims(2**31 - 1, encode)):
        done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
        assert f"{MAX_PIXELS:,}".encode() in done.stdout


def test_a_bomb_of_which_pillow_only_warns_is_refused_too(encode: Encode):
    data = png_that_claims(10_000, encode)
    with pytest.raises(TooLarge):  # the warning is an error here
        size_of(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TooLarge):
            size_of(data)


def test_the_size_needs_the_header_alone(jpegs: dict[str, bytes], encode: Encode):
    data = jpegs["333 x 500"]
    assert size_of(data[: data.index(b"\xff\xda") + 20]) == (333, 500)
    png = encode(np.zeros((30, 40, 3), np.uint8), "PNG")
    assert size_of(png[:-30]) == (30, 40)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_decode_or_are_corrupt_never_anything_else(
    data: st.DataObject, jpegs: dict[str, bytes], encode: Encode, photograph: Callable[..., np.ndarray]
):
    kind = data.draw(
        st.sampled_from(["4:2:0", "progressive", "restart rows", "grayscale", "PNG", "GIF", "WEBP", "TIFF"])
    )
    whole = jpegs[kind] if kind in jpegs else encode(photograph(5, 24, 31), kind)
    damaged = bytearray(whole)
    # Damage near the start meets the headers, damage elsewhere the coded pixels.
    reach = data.draw(st.sampled_from([64, 700, len(whole)]))
    for at, byte in data.draw(
        st.lists(st.tuples(st.integers(0, reach - 1), st.integers(0, 255)), min_size=1, max_size=8)
    ):
        damaged[at % len(whole)] = byte
    try:
        pixels = decode(bytes(damaged), as_stored=data.draw(st.booleans()))
    except CorruptImage:
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*pixels.shape[:2], 3)


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0"]), rest=st.binary()
)
def test_random_bytes_are_corrupt(start: bytes, rest: bytes):
    for function in (decode, size_of):
        try:
            function(start + rest)
        except CorruptImage:
            continue


def test_importing_loads_neither_torch_nor_pillow():
    script = "import sys, resnet.images; print({'torch', 'torchvision', 'PIL', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
