"""The table of kinds against Pillow: each file that is decoded has Pillow's pixels, under the rules of the table."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from resnet.images.checks import image_kinds
from resnet.images.checks.image_limits import CorruptImage, RefusedKind
from resnet.images.decode import decode, size_of

ROOT = Path(__file__).resolve().parent.parent.parent.parent.parent
SIZE = 33, 21


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(pixels: np.ndarray, bits: int, color: int, chunks: tuple[bytes, ...] = (), interlaced: bool = False) -> bytes:
    """What Pillow does not write: (H, W, C) levels of some bits, of a color type, interlaced or not."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b""
    for top, left, down, across in passes if interlaced else [(0, 0, 1, 1)]:
        for row in pixels[top::down, left::across]:
            levels = row.reshape(-1)
            if not levels.size:
                continue
            if bits == 16:
                packed = levels.astype(">u2").tobytes()
            else:
                unpacked = np.unpackbits(levels.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]
                packed = np.packbits(unpacked.reshape(-1)).tobytes()
            lines += b"\0" + packed
    height, width = pixels.shape[:2]
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    parts = [header, *chunks, b"IDAT" + zlib.compress(lines), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts
    )


def files() -> dict[str, tuple[str, bytes]]:
    """name -> (kind, bytes): every variant that Pillow reads and that can be made here."""
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(SIZE))
    grey, cmyk = rgb.convert("L"), rgb.convert("CMYK")
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    deep = Image.fromarray(rng.integers(0, 2**16, SIZE[::-1], dtype=np.uint16))
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    adobe = encoded(cmyk, "JPEG", quality=90)
    at = adobe.index(b"Adobe") + 11
    two = rng.integers(0, 4, (21, 33, 1))
    wide = rng.integers(0, 2**16, (21, 33, 3))
    found = {
        "JPEG": {
            "YCbCr": encoded(rgb, "JPEG"),
            "progressive": encoded(rgb, "JPEG", progressive=True),
            "RGB": encoded(rgb, "JPEG", keep_rgb=True),
            "grey": encoded(grey, "JPEG"),
            "CMYK": adobe,
            "YCCK": adobe[:at] + b"\x02" + adobe[at + 1 :],
            "MPO": encoded(rgb, "MPO", save_all=True, append_images=[rgb.rotate(90)]),
        },
        "PNG": {
            "1 bit": encoded(rgb.convert("1"), "PNG"),
            "2 bits": png(two, 2, 0),
            "4 bits": png(two * 5, 4, 0),
            "8 bits": encoded(grey, "PNG"),
            "16 bits": encoded(deep, "PNG"),
            "16 bits RGB": png(wide, 16, 2),
            "16 bits grey and alpha": png(wide[..., :2], 16, 4),
            "16 bits RGBA": png(np.concatenate([wide, wide[..., :1]], 2), 16, 6),
            "palette": encoded(palette, "PNG"),
            "palette of 4 bits": encoded(palette, "PNG", bits=4),
            "palette, transparent": encoded(palette, "PNG", transparency=3),
            "palette, translucent": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
            "grey, transparent": encoded(grey, "PNG", transparency=int(np.asarray(grey)[3, 4])),
            "RGB, transparent": encoded(rgb, "PNG", transparency=tuple(np.asarray(rgb)[3, 4].tolist())),
            "alpha": encoded(alpha, "PNG"),
            "grey and alpha": encoded(alpha.convert("LA"), "PNG"),
            "interlaced": png(np.asarray(rgb), 8, 2, interlaced=True),
            "2 bits, interlaced": png(two, 2, 0, interlaced=True),
            "animated": encoded(rgb, "PNG", **frames),
        },
        "WebP": {
            "lossy": encoded(rgb, "WEBP"),
            "lossless": encoded(rgb, "WEBP", lossless=True),
            "alpha": encoded(alpha, "WEBP", lossless=True),
            "lossy, alpha": encoded(alpha, "WEBP"),
            "animated": encoded(rgb, "WEBP", **frames),
        },
        "GIF": {
            "still": encoded(rgb, "GIF"),
            "transparent": encoded(palette, "GIF", transparency=3),
            "animated": encoded(rgb, "GIF", **frames),
        },
        "BMP": {m: encoded(rgb.convert(m), "BMP") for m in ("1", "L", "P", "RGB")} | {"32": encoded(alpha, "BMP")},
        "AVIF": {
            "RGB": encoded(rgb, "AVIF"),
            "alpha": encoded(alpha, "AVIF"),
            "animated": encoded(rgb, "AVIF", **frames),
        },
        "TIFF": {
            **{m: encoded(rgb.convert(m), "TIFF") for m in ("1", "L", "P", "RGB", "CMYK", "YCbCr")},
            **{c: encoded(rgb, "TIFF", compression=c) for c in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")},
            "group 4": encoded(rgb.convert("1"), "TIFF", compression="group4"),
            "alpha": encoded(alpha, "TIFF"),
            "16 bits": encoded(deep, "TIFF"),
            "pages": encoded(rgb, "TIFF", **frames),
            "big": encoded(rgb, "TIFF", big_tiff=True),
        },
        "PNM": {
            "PBM": encoded(rgb.convert("1"), "PPM"),
            "PGM": encoded(grey, "PPM"),
            "PPM": encoded(rgb, "PPM"),
            "PGM of 16 bits": encoded(deep, "PPM"),
        },
        "JPEG 2000": {
            **{m: encoded(rgb.convert(m), "JPEG2000") for m in ("L", "RGB")},
            "alpha": encoded(alpha, "JPEG2000"),
            "16 bits": encoded(deep, "JPEG2000"),
            "code stream": encoded(rgb, "JPEG2000", no_jp2=True),
        },
        "ICO": {"PNG inside": encoded(alpha, "ICO"), "BMP inside": encoded(alpha, "ICO", bitmap_format="bmp")},
    }
    return {f"{kind}, {name}": (kind, data) for kind, those in found.items() for name, data in those.items()}


FILES = files()


def by_the_rules(data: bytes) -> np.ndarray:
    """Pillow's pixels of the first frame: 16 bits lose the lower eight, transparency is laid on white, upright."""
    image = Image.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("name", FILES)
def test_each_kind_has_pillows_pixels_under_the_rules(name: str):
    kind, data = FILES[name]
    assert image_kinds.kind_of(data).name == kind
    expected = by_the_rules(data)
    assert np.array_equal(decode(data), expected)
    assert size_of(data) == expected.shape[:2]


def test_every_kind_that_is_decoded_is_in_the_table_and_was_tried():
    by_pillow = {kind.name for kind in image_kinds.DECODED} - {"DICOM"}  # tests/resnet/images/test_dicom.py
    assert {kind for kind, _ in FILES.values()} == by_pillow
    assert {variant.kind for variant in image_kinds.VARIANTS} == {kind.name for kind in image_kinds.DECODED}
    suffixes = [suffix for kind in image_kinds.KINDS for suffix in kind.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "got HEIC: convert it to JPEG or PNG"),
        (b"\xff\x0a" + bytes(30), "got JPEG XL"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(60), "got Canon raw"),
        (b"<!DOCTYPE html><html>404</html>", "got HTML: a web page came instead"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "got Git LFS pointer: `git lfs pull`"),
        (b'{"image": "/9j/4AAQ"}', "got JSON: send the bytes of the file itself"),
        (b"data:image/jpeg;base64,/9j/4AAQ", "got base64 text"),
        (b"PK\x03\x04 zip", "got ZIP: unpack it"),
    ],
)
def test_other_kinds_are_refused_by_name_with_what_to_do(data: bytes, words: str):
    for function in (decode, size_of):
        with pytest.raises(RefusedKind, match=words):
            function(data)


def test_variants_that_are_not_decoded_are_refused_by_name(encode: Callable[..., bytes]):
    jpeg = encode(Image.new("RGB", SIZE))
    frame = jpeg.index(b"\xff\xc0")
    run_length = bytearray(encode(Image.new("P", SIZE), "BMP"))
    run_length[30] = 1
    refused = {
        "12 bits a sample": jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :],
        "lossless or hierarchical": jpeg[:frame] + b"\xff\xc3" + jpeg[frame + 2 :],
        "two components": jpeg[: frame + 9] + b"\x02" + jpeg[frame + 10 :],
        "run-length encoded": bytes(run_length),
        "32-bit floats": encode(np.ones((4, 4), np.float32), "TIFF"),
        "32-bit integers": encode(np.full((4, 4), 70000, np.int32), "TIFF"),
    }
    there = {variant.name for variant in image_kinds.VARIANTS if not variant.decoded and variant.kind != "DICOM"}
    assert set(refused) == there
    for name, data in refused.items():
        with pytest.raises(RefusedKind, match=f"not decoded, got {name}"):
            decode(data)


def test_a_damaged_header_is_told_as_such_and_not_as_an_unknown_kind(encode: Callable[..., bytes]):
    rgb = Image.new("RGB", SIZE)
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        data = encode(rgb, kind)
        with pytest.raises(CorruptImage, match=r"must (have a readable header|be complete|have pixels)"):
            decode(data[:20] + bytes(len(data) - 20))


def test_the_page_is_the_table():
    assert (ROOT / "docs" / "image-kinds.md").read_text() == image_kinds.markdown()
