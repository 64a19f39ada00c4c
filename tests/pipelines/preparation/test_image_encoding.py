"""What preparation does with one image: upright, within the limits, by the range of grey levels."""

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines.preparation.formats import tar_archives
from pipelines.preparation.image_encoding import LOST, admit
from pipelines.preparation.prepare import verify, write_shards
from pipelines.preparation.sources import Source
from pipelines.shards.manifest import Encoding, read_manifest
from pipelines.shards.row_groups import open_split
from resnet.images.checks import image_kinds
from resnet.images.checks.image_limits import CorruptImage, RefusedKind, TooLarge, TooMuchWork
from resnet.images.decode import decode
from resnet.images.grey_range import GreyRange
from tests.pipelines.preparation.sources_on_disk import deep_folders, encoded, rows_of, smooth, smooth_folders, write
from tests.resnet.images.test_dicom import dataset, random_levels
from tests.resnet.images.test_dicom import written as dicom_written

SMALL = Encoding(shorter_side=32, quality=95)


def picture(width: int = 96, height: int = 64) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_encoded_again_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(), kind, exif=exif)
    upright: Any = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    admitted = admit(data, "a/b", SMALL)
    small = Image.open(io.BytesIO(admitted.data))
    assert 0x0112 not in small.getexif(), "or it would be turned twice"
    expected = upright.resize(small.size, Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(small).astype(int) - np.asarray(expected)).mean() < 8, (
        "of JPEG's noise; turned wrongly it is 60"
    )
    noted = [what for what in admitted.unusual if "EXIF" in what]
    assert noted == ([] if orientation == 1 else [f"EXIF orientation {orientation}, turned upright"])
    kept = admit(data, "a/b", Encoding())
    assert (kept.data, kept.reencoded) == (data, False), "what is kept keeps its note, and is turned by its readers"
    assert [what for what in kept.unusual if "EXIF" in what] == noted


def test_repeated_scans_are_refused_by_name(tmp_path: Path, with_scans: Callable[[bytes, int], bytes]) -> None:
    bomb = with_scans(encoded(picture(), progressive=True), 2000)
    for how in (Encoding(), SMALL):
        with pytest.raises(TooMuchWork, match="at most 100 scans"):
            admit(bomb, "a/b", how)
    for split in ("train", "val"):
        (tmp_path / "images" / split / "a").mkdir(parents=True)
        (tmp_path / "images" / split / "a" / f"{split}.jpg").write_bytes(encoded(picture()))
    (tmp_path / "images/train/a/bomb.jpg").write_bytes(bomb)
    manifest = write_shards(Source(path=str(tmp_path / "images")), str(tmp_path / "out"), workers=0, max_rejected=0.5)
    assert [(r.key, r.reason) for r in manifest.rejected] == [
        ("a/bomb.jpg", "a JPEG must have at most 100 scans, got more")
    ]


def test_the_way_in_above_the_limit_of_pixels_is_told_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import sys\n"
        "from resnet.images.checks import image_limits\n"
        "object.__setattr__(image_limits.LIMITS, 'pixels', 5000)\n"
        "from pipelines.preparation.image_encoding import admit\n"
        "from pipelines.shards.manifest import Encoding\n"
        "data = sys.stdin.buffer.read()\n"
        "for how in (Encoding(), Encoding(shorter_side=32, quality=90)):\n"
        "    try: print(admit(data, 'a/b.jpg', how)[1:])\n"
        "    except ValueError as error: print(type(error).__name__, error)"
    )

    def told(data: bytes) -> list[str]:
        done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
        return done.stdout.decode().splitlines()

    assert told(encoded(picture())) == [
        "TooLarge an image must have at most 5,000 pixels, got 96 x 64; with --shorter-side a larger JPEG is scaled "
        "down while it is decoded",
        "(('more than 5,000 pixels, scaled down',), True, (32, 48))",
    ]
    assert told(encoded(picture(), "PNG")) == [
        "TooLarge an image must have at most 5,000 pixels, got 96 x 64",
        "TooLarge an image of more than 5,000 pixels must be a JPEG of 8 bits, grey or of three colours, to be scaled "
        "down while it is decoded; got PNG",
    ]


def test_other_kinds_and_damage_are_told_truly() -> None:
    jpeg = encoded(picture())
    frame = jpeg.index(b"\xff\xc0")
    twelve = jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    for data, error, words in (
        (twelve, RefusedKind, "12 bits a sample"),
        (jpeg[:200], CorruptImage, "this JPEG has no frame or no scan"),
        (jpeg[:-40], CorruptImage, "must be complete, got JPEG, 96 x 64"),
        (b"<html>404", RefusedKind, "a web page came instead"),
    ):
        with pytest.raises(error, match=words):
            admit(data, "a/b.jpg", Encoding())


# --- More than 8 bits of grey ---


def test_deep_grey_without_a_range_is_noted(tmp_path: Path) -> None:
    found = deep_folders(tmp_path / "images")
    manifest = write_shards(Source(path=str(tmp_path / "images")), str(tmp_path / "out"), workers=0)
    assert {u.what: u.count for u in manifest.unusual}[LOST] == len(found)
    assert manifest.encoding.grey_range is None
    assert "grey_range" not in (tmp_path / "out" / "manifest.json").read_text(), "as before there was one"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_range_is_kept_in_the_manifest_and_applied_once(tmp_path: Path, kind: str) -> None:
    found = deep_folders(tmp_path / "images", kind)
    out = str(tmp_path / "out")
    written = write_shards(
        Source(path=str(tmp_path / "images")), out, workers=0, encoding=Encoding(grey_range=(0, 4095))
    )
    manifest = read_manifest(out)
    assert manifest == written
    assert manifest.encoding.grey_range == (0, 4095)
    assert manifest.reencoded == len(found)
    for name in ("train", "val"):
        rows = open_split(out, name)[1].read(0, ("key", "image"))
        for key, data in zip(rows["key"], rows["image"], strict=True):
            expected = (found[key] >> 4).astype(np.uint8)
            assert np.array_equal(decode(data), np.repeat(expected[..., None], 3, axis=2))
    with pytest.raises(ValueError, match="grey_range"):
        write_shards(Source(path=str(tmp_path / "images")), out, workers=0, encoding=Encoding(grey_range=(0, 1000)))


def test_a_gif_that_is_damaged_behind_its_first_frame_is_kept() -> None:
    frames = [picture().convert("P"), picture().rotate(90).convert("P")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first = encoded(frames[0], "GIF")
    for keep in range(len(first) - 1, len(data), 7):
        try:
            assert admit(data[:keep], "a/b.gif", Encoding()).data == data[:keep]
        except CorruptImage:
            continue


def test_what_sources_list_by_their_names_agrees_with_the_table_of_kinds() -> None:
    assert set(image_kinds.SUFFIXES) <= tar_archives.IMAGE_SUFFIXES, "a member of a tar"
    assert {"heic", "jxl"} <= tar_archives.IMAGE_SUFFIXES, "rejected by name, not passed over"


def test_an_image_too_long_for_a_jpeg_is_told_so() -> None:
    """Case 110023 of benchmarks/reliability/fuzz_images.py."""
    hair = encoded(Image.new("L", (70_000, 33)), "PNG")
    assert admit(hair, "a/b.png", Encoding()).data == hair
    with pytest.raises(TooLarge, match=r"sides of at most 65500 once scaled down, got 67879"):
        admit(hair, "a/b.png", SMALL)


def odd_images() -> dict[str, bytes]:
    """Every kind of image that real sets hold beside plain ones."""
    plain, rng = smooth(1), np.random.default_rng(0)
    jpeg = encoded(plain)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(rng.integers(0, 2**16, (20, 20), dtype=np.uint16))
    torn = bytearray(encoded(smooth(2, 200, 200)))
    torn[len(torn) // 2 : len(torn) // 2 + 40] = bytes(40)
    return {
        "plain.jpg": jpeg,
        "gray.jpg": encoded(plain.convert("L")),
        "cmyk.jpg": encoded(plain.convert("CMYK")),
        "deep.png": encoded(deep, "PNG"),
        "animated.gif": encoded(plain, "GIF", save_all=True, append_images=[smooth(3), smooth(4)]),
        "rotated.jpg": encoded(plain, exif=exif),
        "really_png.JPEG": encoded(plain, "PNG"),
        "alpha.png": encoded(plain.convert("RGBA"), "PNG"),
        "torn.jpg": bytes(torn),
        "photo.webp": encoded(plain, "WEBP"),
        "no_suffix": jpeg,
        "zero.jpg": b"",
        "text.jpg": b"<html>404 not found</html>",
        "half.jpg": encoded(smooth(5, 200, 200))[:1500],
        "half.png": encoded(smooth(6, 200, 200), "PNG")[:900],
        "head.jpg": jpeg[:10],
        "bomb.png": bomb(60_000),
    }


def bomb(side: int) -> bytes:
    """A PNG whose header claims side x side pixels."""
    data = bytearray(encoded(smooth(7), "PNG"))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(shorter_side=16, quality=90)])
def test_odd_images_are_handled_or_rejected_by_name(tmp_path: Path, encoding: Encoding) -> None:
    smooth_folders(tmp_path / "images")
    for name, data in odd_images().items():
        (tmp_path / "images" / "train" / "cat" / name).write_bytes(data)
    manifest = write(tmp_path / "images", tmp_path / "out", max_rejected=0.2, encoding=encoding)
    assert {r.key: r.split for r in manifest.rejected} == {
        f"cat/{name}": "train" for name in ("zero.jpg", "text.jpg", "half.jpg", "half.png", "head.jpg", "bomb.png")
    }
    assert all(r.reason and "\n" not in r.reason for r in manifest.rejected)
    assert {u.what: u.keys for u in manifest.unusual} == {
        "JPEG of mode L": ("cat/gray.jpg",),
        "JPEG of mode CMYK": ("cat/cmyk.jpg",),
        "PNG of mode I;16": ("cat/deep.png",),
        LOST: ("cat/deep.png",),
        "animated, the first frame counts": ("cat/animated.gif",),
        "EXIF orientation 6, turned upright": ("cat/rotated.jpg",),
        "PNG named .jpeg": ("cat/really_png.JPEG",),
        "PNG of mode RGBA": ("cat/alpha.png",),
        "damaged inside, as libjpeg warns": ("cat/torn.jpg",),
    }
    stored = {key: data for key, _, data in rows_of(tmp_path / "out", manifest)["train"]}
    for name, data in odd_images().items():
        if f"cat/{name}" not in {r.key for r in manifest.rejected} and encoding == Encoding():
            assert stored[f"cat/{name}"] == data, "bytes are kept as they are"
    assert verify(str(tmp_path / "out")) == []


def test_a_dicom_is_stored_as_its_picture_without_its_patient() -> None:
    """By its window, or by the range of grey levels; the endpoint makes the same of the file itself."""
    levels = random_levels(np.uint16, 0, 4096)
    windowed = dicom_written(dataset(levels, 12, WindowCenter=700, WindowWidth=900))
    deep, rgb = dicom_written(dataset(levels, 12)), dicom_written(dataset(random_levels(np.uint8, 0, 256, (9, 8, 3))))
    for data, encoding, told in (
        (windowed, Encoding(), ("DICOM of mode L by its window",)),
        (windowed, Encoding(grey_range=(10, 20)), ("DICOM of mode L by its window",)),
        (deep, Encoding(), ("DICOM of mode I;16", LOST)),
        (deep, Encoding(grey_range=(100, 900)), ("DICOM of mode I;16",)),
        (rgb, Encoding(), ()),
    ):
        assert b"Doe^Jane" in data
        admitted = admit(data, "lung/1.dcm", encoding)
        assert b"Doe^Jane" not in admitted.data
        assert (admitted.unusual, admitted.reencoded) == (told, True)
        grey_range = None if encoding.grey_range is None else GreyRange(*encoding.grey_range)
        np.testing.assert_array_equal(decode(admitted.data), decode(data, grey_range))


def test_larger_images_are_encoded_smaller_and_the_others_keep_their_bytes(tmp_path: Path) -> None:
    root = tmp_path / "images"
    expected = smooth_folders(root, train=2, val=1, width=60, height=48)
    small = encoded(smooth(8, 90, 32))
    (root / "train" / "cat" / "small.jpg").write_bytes(small)
    (root / "train" / "cat" / "small.png").write_bytes(encoded(smooth(9, 30, 32), "PNG"))
    (root / "train" / "cat" / "large.png").write_bytes(encoded(smooth(9, 64, 96), "PNG"))
    manifest = write(root, tmp_path / "out", encoding=Encoding(shorter_side=32, quality=90))
    rows = rows_of(tmp_path / "out", manifest)
    stored = {key: data for split in ("train", "val") for key, _, data in rows[split]}
    assert stored["cat/small.jpg"] == small
    assert stored["cat/small.png"][:4] == b"\x89PNG"
    assert (manifest.encoding.shorter_side, manifest.encoding.quality, manifest.reencoded) == (32, 90, 7)
    large = Image.open(io.BytesIO(stored["cat/large.png"]))
    assert (large.format, large.size) == ("JPEG", (32, 48))
    for key, (_, data) in (expected["train"] | expected["val"]).items():
        image: Any = Image.open(io.BytesIO(stored[key]))
        assert (image.format, image.size) == ("JPEG", (40, 32))
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)], "4:2:0"
        want = Image.open(io.BytesIO(data)).resize((40, 32), Image.Resampling.BILINEAR)
        assert np.abs(np.asarray(image, dtype=int) - np.asarray(want, dtype=int)).mean() < 4
