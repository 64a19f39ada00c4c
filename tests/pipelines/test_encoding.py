"""What preparation does with one image: upright, within the limits, by the range of grey levels."""

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines import encoding, sampling, tars
from pipelines.encoding import LOST, admit
from pipelines.grey_sampling import measured_range
from pipelines.manifest import Encoding
from pipelines.shards import Preparation, Source, read_manifest, write_shards
from pipelines.sources import list_source
from pipelines.split import open_split
from resnet import image_kinds
from resnet.decoding import CorruptImage, RefusedKind, TooLarge, TooMuchWork, decode
from resnet.image_limits import LIMITS, Limits

SMALL = Encoding(shorter_side=32, quality=95)


def picture(width: int = 96, height: int = 64) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


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
        "from resnet import image_limits\n"
        "object.__setattr__(image_limits.LIMITS, 'pixels', 5000)\n"
        "from pipelines.encoding import admit\n"
        "from pipelines.manifest import Encoding\n"
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
        "(('more than 5,000 pixels, scaled down',), True)",
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


def write_deep(root: Path, kind: str = "PNG") -> dict[str, np.ndarray]:
    """12-bit data in files of 16 bits."""
    rng, found = np.random.default_rng(0), {}
    for split, count in (("train", 8), ("val", 3)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                levels = rng.integers(1000, 3000, (40, 40)).astype(np.uint16)
                name = f"{label}/{split}{i}.{kind.lower()}"
                (root / split / name).write_bytes(encoded(Image.fromarray(levels), kind))
                found[name] = levels
    return found


def test_deep_grey_without_a_range_is_noted(tmp_path: Path) -> None:
    found = write_deep(tmp_path / "images")
    manifest = write_shards(Source(path=str(tmp_path / "images")), str(tmp_path / "out"), workers=0)
    assert {u.what: u.count for u in manifest.unusual}[LOST] == len(found)
    assert manifest.encoding.grey_range is None
    assert "grey_range" not in (tmp_path / "out" / "manifest.json").read_text(), "as before there was one"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_range_is_kept_in_the_manifest_and_applied_once(tmp_path: Path, kind: str) -> None:
    found = write_deep(tmp_path / "images", kind)
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


def test_a_measured_range_is_that_of_the_images(tmp_path: Path) -> None:
    write_deep(tmp_path / "images")
    source = Source(path=str(tmp_path / "images"))
    assert measured_range(list_source(source)) == measured_range(list_source(source))
    manifest = write_shards(source, str(tmp_path / "out"), workers=0, measure_grey_range=True)
    low, high = manifest.encoding.grey_range or (0, 0)
    assert 1000 <= low <= 1005
    assert 2994 <= high <= 2999
    (tmp_path / "plain").mkdir()
    for split in ("train", "val"):
        (tmp_path / "plain" / split / "a").mkdir(parents=True)
        (tmp_path / "plain" / split / "a" / "x.jpg").write_bytes(encoded(picture()))
    with pytest.raises(ValueError, match="none of the 1 looked at is one"):
        write_shards(Source(path=str(tmp_path / "plain")), str(tmp_path / "none"), workers=0, measure_grey_range=True)


def test_a_range_that_is_none_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="0 <= low < high <= 65535, got 5, 5"):
        Encoding(grey_range=(5, 5))
    with pytest.raises(ValueError, match="grey_range must be left out with measure_grey_range"):
        Preparation(out="x", grey_range=(0, 4095), measure_grey_range=True)


def test_a_gif_that_is_damaged_behind_its_first_frame_is_kept() -> None:
    frames = [picture().convert("P"), picture().rotate(90).convert("P")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    first = encoded(frames[0], "GIF")
    for keep in range(len(first) - 1, len(data), 7):
        try:
            assert admit(data[:keep], "a/b.gif", Encoding()).data == data[:keep]
        except CorruptImage:
            continue


def test_the_limits_are_the_same_object_everywhere() -> None:
    assert encoding.LIMITS is LIMITS
    assert Limits() == LIMITS
    assert issubclass(TooLarge, CorruptImage)


def test_what_sources_list_by_their_names_agrees_with_the_table_of_kinds() -> None:
    assert {f".{suffix}" for suffix in image_kinds.SUFFIXES} == set(sampling.SUFFIXES)
    assert set(image_kinds.SUFFIXES) <= tars.IMAGE_SUFFIXES, "a member of a tar"
    assert {"heic", "jxl"} <= tars.IMAGE_SUFFIXES, "rejected by name, not passed over"


def test_an_image_too_long_for_a_jpeg_is_told_so() -> None:
    """Case 110023 of benchmarks/reliability/fuzz_images.py."""
    hair = encoded(Image.new("L", (70_000, 33)), "PNG")
    assert admit(hair, "a/b.png", Encoding()).data == hair
    with pytest.raises(TooLarge, match=r"sides of at most 65500 once scaled down, got 67879"):
        admit(hair, "a/b.png", SMALL)
