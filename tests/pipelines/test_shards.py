"""Shards hold what the source has, once; a kill at any moment, a flipped bit or a bad image changes nothing unseen."""

import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import fs
from pyarrow import parquet as pq

from pipelines.encoding import LOST
from pipelines.listing import Listing, classes_of, listed
from pipelines.plan import default_row_group_size, fingerprint, plan
from pipelines.shards import Encoding, Manifest, Source, filesystem, read_manifest, verify, write_shards
from pipelines.storage import Folder


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """Smooth noise, so that JPEG and resizing keep its pixels."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def write_folders(root: Path, train: int = 10, val: int = 4, **size: int) -> dict[str, dict[str, tuple[int, bytes]]]:
    """Class folders cat and dog; returns split -> {key: (label, bytes)}."""
    expected: dict[str, dict[str, tuple[int, bytes]]] = {}
    for split, count in (("train", train), ("val", val)):
        expected[split] = {}
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                data = encoded(picture(1000 * label + i + (split == "val") * 5000, **size), quality=90)
                (root / split / name / f"{split}{i:04d}.jpg").write_bytes(data)
                expected[split][f"{name}/{split}{i:04d}.jpg"] = (label, data)
    return expected


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    write_folders(tmp_path / "images")
    return tmp_path / "images"


def write(source: Path | str, out: Path | str, **options: Any) -> Manifest:
    return write_shards(Source(path=str(source)), str(out), **{"workers": 0, **options})


def rows_of(out: Path | str, manifest: Manifest) -> dict[str, list[tuple[str, int, bytes]]]:
    """split -> (key, label, bytes) of every row, in order."""
    system, root = filesystem(str(out))
    found: dict[str, list[tuple[str, int, bytes]]] = {"train": [], "val": []}
    for shard in manifest.shards:
        file = pq.ParquetFile(f"{root}/{shard.file}", filesystem=system, page_checksum_verification=True)
        assert tuple(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)) == shard.row_groups
        table = file.read().to_pydict()
        found[shard.split] += zip(table["key"], table["label"], table["image"], strict=True)
    return found


def digests(manifest: Manifest) -> list[tuple[str, str]]:
    return [(shard.file, shard.sha256) for shard in manifest.shards]


# --- What is written ---


def test_every_image_is_in_the_shards_once_with_its_bytes(tmp_path: Path) -> None:
    expected = write_folders(tmp_path / "images")
    manifest = write(tmp_path / "images", tmp_path / "out", row_group_size=4)
    found = rows_of(tmp_path / "out", manifest)
    for split, images in expected.items():
        assert {key: (label, data) for key, label, data in found[split]} == images
        assert len(found[split]) == len(images) == manifest.examples(split)  # pyright: ignore[reportArgumentType]
    assert manifest == read_manifest(str(tmp_path / "out"))
    assert [shard.row_groups for shard in manifest.of_split("train")] == [(4,), (4,), (4,), (4,), (4,)]
    assert [shard.file for shard in manifest.of_split("val")] == [
        "val-00000-of-00002.parquet",
        "val-00001-of-00002.parquet",
    ]
    assert sorted(os.listdir(tmp_path / "out")) == sorted([s.file for s in manifest.shards] + ["manifest.json"])
    for shard in manifest.shards:
        data = (tmp_path / "out" / shard.file).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard.bytes, shard.sha256)
    assert manifest.encoding == Encoding()
    assert not manifest.rejected


def test_only_the_last_row_group_of_a_split_is_short_and_columns_are_as_fixed(tmp_path: Path, folders: Path) -> None:
    manifest = write(folders, tmp_path / "out", row_group_size=3)
    rows = [rows for shard in manifest.of_split("train") for rows in shard.row_groups]
    assert rows == [3] * 6 + [2]
    schema = pq.read_schema(tmp_path / "out" / manifest.shards[0].file)
    assert [(f.name, f.type) for f in schema] == [("image", pa.binary()), ("label", pa.int32()), ("key", pa.string())]


def test_the_order_is_shuffled_by_the_seed_alone(tmp_path: Path, folders: Path) -> None:
    keys = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        manifest = write(folders, tmp_path / name, seed=seed)
        keys[name] = [key for key, _, _ in rows_of(tmp_path / name, manifest)["train"]]
        if name != "c":
            keys[f"{name} digests"] = digests(manifest)  # type: ignore[assignment]
    assert keys["a digests"] == keys["b digests"]
    assert keys["a"] == keys["b"] != keys["c"]
    assert sorted(keys["a"]) == sorted(keys["c"]) != keys["a"]


def made_up(images: int, classes: int, size: int, units: int | None) -> Listing:
    rows = [(f"{i}", i * classes // max(1, images), "file", i, size) for i in range(images)]
    table = listed(rows)
    if units:
        table = table.append_column("unit", pa.array([i // units for i in range(images)], pa.int64()))
    return Listing("folders", Folder("x"), classes_of([str(i) for i in range(classes)]), {"train": table, "val": table})


@settings(max_examples=60, deadline=None)
@given(
    images=st.integers(1, 700),
    row_group=st.integers(1, 130),
    shard_bytes=st.integers(1, 10_000),
    units=st.none() | st.integers(1, 50),
    seed=st.integers(0, 5),
)
def test_a_plan_is_a_partition_into_whole_row_groups(
    images: int, row_group: int, shard_bytes: int, units: Any, seed: int
) -> None:
    listing = made_up(images, 3, 10, units)
    plans = plan(listing, row_group, shard_bytes, seed)
    assert [p.rows.tolist() for p in plans] == [p.rows.tolist() for p in plan(listing, row_group, shard_bytes, seed)]
    for split in ("train", "val"):
        mine = [p for p in plans if p.split == split]
        assert sorted(np.concatenate([p.rows for p in mine]).tolist()) == list(range(images))
        assert all(len(p.rows) % row_group == 0 for p in mine[:-1])
        assert all(len(p.rows) for p in mine)
        assert [p.file for p in mine] == [f"{split}-{i:05d}-of-{len(mine):05d}.parquet" for i in range(len(mine))]


def test_each_row_group_is_a_random_sample_of_its_split() -> None:
    """Chi-square of classes by row groups, of a source that is sorted by class, stays within 5 sigma of its mean."""
    listing = made_up(12_800, 10, 100_000, None)
    counts = []
    for p in plan(listing, 128, 2**25, 0):
        if p.split == "train":
            labels = listing.splits["train"]["label"].to_numpy()[p.rows].reshape(-1, 128)
            counts += [np.bincount(group, minlength=10) for group in labels]
    table = np.asarray(counts)
    expected = table.sum(0) / len(table)
    chi2, freedom = ((table - expected) ** 2 / expected).sum(), (len(table) - 1) * 9
    assert table.shape == (100, 10)
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)


def test_row_groups_are_larger_for_many_small_images() -> None:
    assert default_row_group_size(made_up(25_000, 10, 3072, None)) == 512
    assert default_row_group_size(made_up(1437, 10, 64, None)) == 128
    assert default_row_group_size(made_up(25_000, 10, 100_000, None)) == 128


def test_the_fingerprint_sees_sizes_labels_keys_and_the_order() -> None:
    listing = made_up(200, 5, 10, None)
    plans = plan(listing, 8, 1000, 0)
    seen = {fingerprint(listing, plans), fingerprint(listing, plan(listing, 8, 1000, 1))}
    seen |= {fingerprint(listing, plan(listing, 8, 100, 0)), fingerprint(made_up(200, 4, 10, None), plans)}
    assert len(seen | {fingerprint(made_up(200, 5, 11, None), plans)}) == 5
    assert fingerprint(made_up(200, 5, 10, None), plan(listing, 8, 1000, 0)) == fingerprint(listing, plans)


# --- Again, after a kill, elsewhere ---


def test_a_finished_preparation_is_a_no_op(tmp_path: Path, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write(folders, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert write(folders, tmp_path / "out") == manifest
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    assert "is complete: nothing to do" in capsys.readouterr().err


SLOW = """
import sys
from pipelines.shards import Source, write_shards
write_shards(Source(path=sys.argv[1]), sys.argv[2], row_group_size=8, workers=0)
"""


def test_kills_at_any_moment_leave_a_state_that_goes_on_to_the_same_shards(tmp_path: Path) -> None:
    write_folders(tmp_path / "images", train=64, val=32, width=900, height=700)
    whole = write(tmp_path / "images", tmp_path / "whole", row_group_size=8)
    out, kills = tmp_path / "out", 0
    for wanted in (1, 4, 9):
        process = subprocess.Popen([sys.executable, "-c", SLOW, tmp_path / "images", out], stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob(".writing/*.parquet.json"))) < wanted:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills == 3, "a run ended before it was killed"
    assert not (out / "manifest.json").exists()
    with pytest.raises(ValueError, match="a preparation was begun there, run it again"):
        read_manifest(str(out))
    finished = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet")}
    ledger = {p.name.removesuffix(".json") for p in out.glob(".writing/*.parquet.json")}
    (out / "train-00000-of-00016.parquet.deadbeef.part").write_bytes(b"what a killed task leaves")
    assert digests(write(tmp_path / "images", out, row_group_size=8)) == digests(whole)
    assert sorted(p.name for p in out.iterdir()) == sorted([s.file for s in whole.shards] + ["manifest.json"])
    assert len(ledger) >= 9
    assert all((out / name).stat().st_mtime_ns == finished[name] for name in ledger), (
        "a finished shard was written again"
    )


def test_a_shard_or_an_entry_that_a_power_cut_left_short_is_written_again(tmp_path: Path, folders: Path) -> None:
    whole = write(folders, tmp_path / "out", row_group_size=4)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="max_rejected"):  # leaves a folder in which all but the manifest is there
        write(folders, tmp_path / "begun", row_group_size=4, max_rejected=-1)
    begun = tmp_path / "begun"
    first, second = (shard.file for shard in whole.shards[:2])
    (begun / first).write_bytes(b"")
    (begun / ".writing" / f"{second}.json").write_bytes(b'{"shard": {"fi')
    assert digests(write(folders, begun, row_group_size=4)) == digests(read_manifest(str(out)))
    assert verify(str(begun)) == []


def test_ray_tasks_write_the_same_shards(tmp_path: Path, folders: Path, ray_local: Any) -> None:
    (folders / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    here = write(folders, tmp_path / "here", row_group_size=4, max_rejected=0.1)
    by_ray = write(folders, tmp_path / "ray", row_group_size=4, max_rejected=0.1, workers=2)
    assert by_ray == here
    assert [r.key for r in by_ray.rejected] == ["cat/broken.jpg"]


def test_an_error_in_a_ray_task_is_one_sentence(tmp_path: Path, ray_local: Any) -> None:
    from pipelines.shard_file import Work
    from pipelines.shards import _by_ray

    table = listed([("k", 0, "gone.tar", 0, 5)])
    work = Work(
        "webdataset", Folder(str(tmp_path)), Folder(str(tmp_path / "out")), "x.parquet", "train", table, 8, Encoding()
    )
    with pytest.raises(FileNotFoundError, match=r"gone.tar"):
        list(_by_ray([work], 1))
    (tmp_path / "gone.tar").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"gone.tar changed while it was read: 5 bytes were listed, 3 are there"):
        list(_by_ray([work], 1))
    assert not list((tmp_path / "out").glob("*")), "a shard that failed must not be there"


# --- What is refused ---


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, folders: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"out must be empty or hold shards, .* holds thesis.tex"):
        write(folders, out)
    assert os.listdir(out) == ["thesis.tex"]
    with pytest.raises(ValueError, match="is a file"):
        write(folders, out / "thesis.tex")
    (out / "thesis.tex").rename(out / "manifest.json")
    with pytest.raises(ValueError, match="is no manifest of image shards"):
        write(folders, out)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoding": Encoding(shorter_side=16, quality=90)}, "with encoding.shorter_side None, now it is 16"),
        ({"row_group_size": 5}, "with row_group_size 2, now it is 5"),
        ({"seed": 1}, "with shuffle_seed 0, now it is 1"),
        ({"shard_bytes": 1}, "from other images, or in another order"),
    ],
)
def test_other_options_over_what_is_there_are_refused(
    tmp_path: Path, folders: Path, finished: bool, change: dict[str, Any], sentence: str
) -> None:
    out = tmp_path / "out"
    write(folders, out, row_group_size=2)
    if not finished:
        (out / ".writing").mkdir()
        begun = json.loads((out / "manifest.json").read_text()) | {"shards": []}
        (out / ".writing" / "plan.json").write_text(json.dumps(begun))
        (out / "manifest.json").unlink()
    with pytest.raises(ValueError, match=sentence):
        write(folders, out, **{"row_group_size": 2, **change})


def test_a_changed_source_is_refused(tmp_path: Path, folders: Path) -> None:
    write(folders, tmp_path / "out")
    path = folders / "train" / "dog" / "train0001.jpg"
    path.rename(path.with_name("renamed.jpg"))
    with pytest.raises(ValueError, match="from other images"):
        write(folders, tmp_path / "out")
    path.with_name("renamed.jpg").unlink()
    with pytest.raises(ValueError, match=r"source.images 28, now it is 27"):
        write(folders, tmp_path / "out")


def test_an_output_in_the_source_or_around_it_is_refused(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(ValueError, match=r"out must lie apart from source.path"):
        write(folders, folders / "shards")
    (tmp_path / ".writing").mkdir()
    with pytest.raises(ValueError, match=r"out must lie apart from source.path"):
        write(folders, tmp_path)


def test_a_finished_folder_that_lost_a_shard_gets_it_back(tmp_path: Path, folders: Path) -> None:
    manifest = write(folders, tmp_path / "out")
    (tmp_path / "out" / manifest.shards[0].file).unlink()
    assert write(folders, tmp_path / "out") == manifest
    assert verify(str(tmp_path / "out")) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"[1, 2]", "is no manifest"),
        (b"{", "is no manifest"),
        (b'{"format_version": 2}', "has format_version 2, this program reads 1"),
        (b'{"format_version": 1, "shards": []}', "manifest.json: "),
    ],
)
def test_a_foreign_or_newer_manifest_is_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"holds no shards: it has no manifest.json; jobs/write_shards.py"):
        read_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as error:
        read_manifest(str(tmp_path))
    assert "\n" not in str(error.value)


# --- Images that are not plain RGB JPEGs ---


def odd_images() -> dict[str, bytes]:
    """Every kind of image that real sets hold beside plain ones."""
    plain, rng = picture(1), np.random.default_rng(0)
    jpeg = encoded(plain)
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(rng.integers(0, 2**16, (20, 20), dtype=np.uint16))
    torn = bytearray(encoded(picture(2, 200, 200)))
    torn[len(torn) // 2 : len(torn) // 2 + 40] = bytes(40)
    return {
        "plain.jpg": jpeg,
        "gray.jpg": encoded(plain.convert("L")),
        "cmyk.jpg": encoded(plain.convert("CMYK")),
        "deep.png": encoded(deep, "PNG"),
        "animated.gif": encoded(plain, "GIF", save_all=True, append_images=[picture(3), picture(4)]),
        "rotated.jpg": encoded(plain, exif=exif),
        "really_png.JPEG": encoded(plain, "PNG"),
        "alpha.png": encoded(plain.convert("RGBA"), "PNG"),
        "torn.jpg": bytes(torn),
        "photo.webp": encoded(plain, "WEBP"),
        "no_suffix": jpeg,
        "zero.jpg": b"",
        "text.jpg": b"<html>404 not found</html>",
        "half.jpg": encoded(picture(5, 200, 200))[:1500],
        "half.png": encoded(picture(6, 200, 200), "PNG")[:900],
        "head.jpg": jpeg[:10],
        "bomb.png": bomb(60_000),
    }


def bomb(side: int) -> bytes:
    """A PNG whose header claims side x side pixels."""
    data = bytearray(encoded(picture(7), "PNG"))
    data[16:24] = side.to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(shorter_side=16, quality=90)])
def test_odd_images_are_handled_or_rejected_by_name(tmp_path: Path, encoding: Encoding) -> None:
    write_folders(tmp_path / "images")
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


def test_too_many_rejected_images_are_an_error_that_names_the_first(tmp_path: Path, folders: Path) -> None:
    for i in range(5):
        (folders / "train" / "cat" / f"bad{i}.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"at least 0.1515 for the 5 of 33 images .*: cat/bad\d.jpg \(.*and 2 more"):
        write(folders, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.parquet")}
    manifest = write(folders, tmp_path / "out", max_rejected=0.2)
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.parquet")} == before, "nothing is redone"
    assert (len(manifest.rejected), manifest.examples("train")) == (5, 20)


def test_larger_images_are_encoded_smaller_and_the_others_keep_their_bytes(tmp_path: Path) -> None:
    root = tmp_path / "images"
    expected = write_folders(root, train=2, val=1, width=60, height=48)
    small = encoded(picture(8, 90, 32))
    (root / "train" / "cat" / "small.jpg").write_bytes(small)
    (root / "train" / "cat" / "small.png").write_bytes(encoded(picture(9, 30, 32), "PNG"))
    (root / "train" / "cat" / "large.png").write_bytes(encoded(picture(9, 64, 96), "PNG"))
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


def test_a_quality_without_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match="shorter_side and quality must be given together"):
        Encoding(quality=90)


# --- Verification ---


def test_verification_finds_a_flipped_bit_a_lost_and_a_foreign_shard(tmp_path: Path, folders: Path) -> None:
    out = tmp_path / "out"
    manifest = write(folders, out, row_group_size=4)
    assert verify(str(out)) == []
    first, second, third = (out / shard.file for shard in manifest.shards[:3])
    data = bytearray(first.read_bytes())
    data[len(data) // 3] ^= 1
    first.write_bytes(data)
    second.unlink()
    shutil.copy(third, out / "train-99999-of-00001.parquet")
    problems = verify(str(out))
    assert len(problems) == 3
    assert problems[0] == "train-99999-of-00001.parquet is not in the manifest"
    assert problems[1].startswith(f"{first.name} has {len(data)} bytes and sha256 ")
    assert problems[2] == f"{second.name} is missing"
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.ParquetFile(first, page_checksum_verification=True).read()


def test_verification_finds_a_manifest_that_was_edited(tmp_path: Path, folders: Path) -> None:
    manifest = write(folders, tmp_path / "out", row_group_size=8)
    path = tmp_path / "out" / "manifest.json"
    edited = json.loads(path.read_text())
    edited["shards"][0]["row_groups"] = [4, 4]
    path.write_text(json.dumps(edited))
    assert verify(str(tmp_path / "out")) == [
        f"{manifest.shards[0].file} has row groups of (8,) rows, the manifest (4, 4)"
    ]
    edited["shards"][0]["row_groups"], edited["classes"] = [8], edited["classes"][:1]
    path.write_text(json.dumps(edited))
    assert all("labels 0 to 1, the manifest 1 classes" in problem for problem in verify(str(tmp_path / "out")))


# --- Other file systems ---


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URI template of a bucket on an S3 server on the loopback interface: s3://images/{}?..."""
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed").ThreadedMotoServer(
        "127.0.0.1", 0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server.start()
        host, port = server.get_host_and_port()
        options = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
        fs.FileSystem.from_uri(f"s3://images?{options}&allow_bucket_creation=true")[0].create_dir("images")
        yield "s3://images/{}?" + options
        server.stop()


def upload(folder: Path, uri: str) -> None:
    system, root = fs.FileSystem.from_uri(uri)
    fs.copy_files(str(folder), root, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)


def test_s3_is_read_and_written_like_a_local_folder(tmp_path: Path, folders: Path, s3: str) -> None:
    here = write(folders, tmp_path / "out", row_group_size=4)
    upload(folders, s3.format("folders"))
    there = write(s3.format("folders"), s3.format("a/out"), row_group_size=4)
    assert digests(there) == digests(here)
    assert there.source.path == "s3://images/folders", "options and credentials are no record's business"
    assert verify(s3.format("a/out")) == []
    assert write(s3.format("folders"), s3.format("a/out"), row_group_size=4) == there, "a no-op"
    with pytest.raises(ValueError, match="max_rejected"):
        write(folders, s3.format("begun"), row_group_size=4, max_rejected=-1)
    assert digests(write(folders, s3.format("begun"), row_group_size=4)) == digests(here), "resumed by its ledger"


def test_tars_on_s3_are_read_by_ranges(tmp_path: Path, s3: str) -> None:
    (tmp_path / "tars").mkdir()
    for split in ("train", "val"):
        with tarfile.open(tmp_path / "tars" / f"x-{split}-0.tar", "w") as archive:
            for i in range(9):
                for name, data in ((f"{split}{i}.jpg", encoded(picture(i))), (f"{split}{i}.cls", b"0")):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    upload(tmp_path / "tars", s3.format("tars"))
    there = write(s3.format("tars/x-*.tar"), tmp_path / "there")
    assert digests(there) == digests(write(tmp_path / "tars", tmp_path / "here"))


def test_a_bucket_that_is_not_there_is_one_sentence(folders: Path, s3: str) -> None:
    with pytest.raises(ValueError, match="out must lie in a bucket that exists, nowhere does not"):
        write(folders, s3.replace("images", "nowhere").format("out"))
    with pytest.raises(ValueError, match=r"source.path must exist"):
        write(s3.format("nothing/here"), "out")


def test_a_password_in_a_uri_is_refused_and_not_repeated(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(ValueError, match="s3://images/out must be given without its password") as caught:
        write(folders, "s3://name:secret@images/out?region=us-east-1")
    assert "secret" not in str(caught.value)


def test_a_relative_path_means_the_same_in_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    travelled = pickle.dumps(Folder("images"))
    monkeypatch.chdir("/")
    assert pickle.loads(travelled).path("x") == str(tmp_path / "images" / "x")


def test_any_file_system_of_fsspec_serves(tmp_path: Path, folders: Path) -> None:
    here = write(folders, tmp_path / "out", row_group_size=4)
    assert digests(write(folders, "memory://shards/out", row_group_size=4)) == digests(here)
    assert verify("memory://shards/out") == []


# --- Memory ---

PEAK = """
import resource, sys
from pipelines.shards import Encoding, Source, write_shards
options = dict(encoding=Encoding(shorter_side=16, quality=90), row_group_size=8, workers=0)
write_shards(Source(path=sys.argv[1]), sys.argv[2], **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2 ** (20 if sys.platform == "darwin" else 10))
"""


def peak_of(folder: Path, images: int) -> int:
    """Peak resident memory in MiB to prepare tars of images of 4 MiB each (a JPEG and a hole in a sparse file)."""
    folder.mkdir()
    data, size = encoded(picture(1)), 2**22
    for split, count in (("train", images), ("val", 1)):
        with (folder / f"{split}-0.tar").open("wb") as file:
            for i in range(count):
                for name, content, length in ((f"{split}{i}.jpg", data, size), (f"{split}{i}.cls", b"0", 1)):
                    info = tarfile.TarInfo(name)
                    info.size = length
                    file.write(info.tobuf() + content)
                    file.seek(-(-(file.tell() - len(content) + length) // 512) * 512)
            file.write(bytes(1024))
    command = [sys.executable, "-c", PEAK, folder, f"{folder}.out"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform == "win32", reason="resource is of Unix")
def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    small, large = peak_of(tmp_path / "small", 16), peak_of(tmp_path / "large", 96)
    assert large < small + 64, f"{small} MiB for an archive of 68 MiB, {large} MiB for one of 388 MiB"
