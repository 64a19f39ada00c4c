"""Shards hold what the source has, once; a kill at any moment, a flipped bit or a bad image changes nothing unseen."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs
from pyarrow import parquet as pq

from pipelines.preparation.listing import listed
from pipelines.preparation.preparation_options import Preparation
from pipelines.preparation.prepare import prepare, verify
from pipelines.preparation.sources import Source
from pipelines.shards.manifest import Encoding, read_manifest
from pipelines.storage import Folder
from tests.pipelines.preparation.sources_on_disk import (
    digests,
    encoded,
    fill,
    refused,
    rows_of,
    smooth,
    smooth_folders,
    write,
)
from tests.s3_server import options_of, s3_server

# --- What is written ---


def test_every_image_is_in_the_shards_once_with_its_bytes(tmp_path: Path) -> None:
    expected = smooth_folders(tmp_path / "images")
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


# --- Again, after a kill, elsewhere ---


def test_a_finished_preparation_is_a_no_op(tmp_path: Path, folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write(folders, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    assert write(folders, tmp_path / "out") == manifest
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    assert "is complete: nothing to do" in capsys.readouterr().err


SLOW = """
import sys
from pipelines.preparation.prepare import Source, write_shards
write_shards(Source(path=sys.argv[1]), sys.argv[2], row_group_size=8, workers=0)
"""


def test_kills_at_any_moment_leave_a_state_that_goes_on_to_the_same_shards(tmp_path: Path) -> None:
    smooth_folders(tmp_path / "images", train=32, val=16, width=900, height=700)
    whole = write(tmp_path / "images", tmp_path / "whole", row_group_size=8)
    out, kills = tmp_path / "out", 0
    for wanted in (1, 3, 6):
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
    (out / "train-00000-of-00008.parquet.deadbeef.part").write_bytes(b"what a killed task leaves")
    assert digests(write(tmp_path / "images", out, row_group_size=8)) == digests(whole)
    assert sorted(p.name for p in out.iterdir()) == sorted([s.file for s in whole.shards] + ["manifest.json"])
    assert len(ledger) >= 6
    assert all((out / name).stat().st_mtime_ns == finished[name] for name in ledger), (
        "a finished shard was written again"
    )


def test_ray_tasks_write_the_same_shards(tmp_path: Path, folders: Path, ray_local: Any) -> None:
    (folders / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    here = write(folders, tmp_path / "here", row_group_size=4, max_rejected=0.1)
    by_ray = write(folders, tmp_path / "ray", row_group_size=4, max_rejected=0.1, workers=2)
    assert by_ray == here
    assert [r.key for r in by_ray.rejected] == ["cat/broken.jpg"]


def test_an_error_in_a_ray_task_is_one_sentence(tmp_path: Path, ray_local: Any) -> None:
    from pipelines.preparation.prepare import _by_ray
    from pipelines.preparation.shard_writer import Work

    table = listed([("k", 0, "gone.tar", 0, 5)])
    work = Work(
        "webdataset", Folder(str(tmp_path)), Folder(str(tmp_path / "out")), "x.parquet", "train", table, 8, Encoding()
    )
    with pytest.raises(FileNotFoundError, match=r"gone.tar"):
        list(_by_ray([work], 1, work.source, work.out))
    (tmp_path / "gone.tar").write_bytes(b"abc")
    with pytest.raises(ValueError, match=r"gone.tar changed while it was read: 5 bytes were listed, 3 are there"):
        list(_by_ray([work], 1, work.source, work.out))
    assert not list((tmp_path / "out").glob("*")), "a shard that failed must not be there"


# --- What is refused ---


def test_an_output_in_the_source_or_around_it_is_refused(tmp_path: Path, folders: Path) -> None:
    with pytest.raises(ValueError, match=r"out must lie apart from source.path"):
        write(folders, folders / "shards")
    (tmp_path / ".writing").mkdir()
    with pytest.raises(ValueError, match=r"out must lie apart from source.path"):
        write(folders, tmp_path)


# --- Images that are not plain RGB JPEGs ---


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


def test_counts_that_were_edited_together_are_found_by_verification(tmp_path: Path, folders: Path) -> None:
    write(folders, tmp_path / "out")
    path = tmp_path / "out" / "manifest.json"
    edited = json.loads(path.read_text())
    edited["source"]["images"] = 99
    path.write_text(json.dumps(edited))
    assert verify(str(tmp_path / "out")) == [
        "the manifest was edited: it counts 28 images and 0 rejected ones, of 99 in the source"
    ]


# --- Other file systems ---


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """URI template of a bucket on an S3 server on the loopback interface: s3://images/{}?..."""
    with s3_server("images") as address:
        yield "s3://images/{}?" + options_of(address)


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
                for name, data in ((f"{split}{i}.jpg", encoded(smooth(i))), (f"{split}{i}.cls", b"0")):
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


def test_any_file_system_of_fsspec_serves(tmp_path: Path, folders: Path) -> None:
    here = write(folders, tmp_path / "out", row_group_size=4)
    assert digests(write(folders, "memory://shards/out", row_group_size=4)) == digests(here)
    assert verify("memory://shards/out") == []


# --- Memory ---

PEAK = """
import resource, sys
from pipelines.preparation.prepare import Encoding, Source, write_shards
options = dict(encoding=Encoding(shorter_side=16, quality=90), row_group_size=8, workers=0)
write_shards(Source(path=sys.argv[1]), sys.argv[2], **options)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2 ** (20 if sys.platform == "darwin" else 10))
"""


def peak_of(folder: Path, images: int) -> subprocess.Popen[str]:
    """A process that prints its peak resident memory in MiB to prepare tars of images of 4 MiB each.

    An image is a JPEG and a hole in a sparse file.
    """
    folder.mkdir()
    data, size = encoded(smooth(1)), 2**22
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
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="resource is of Unix")
def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    running = [peak_of(tmp_path / "small", 16), peak_of(tmp_path / "large", 96)]
    small, large = (int(process.communicate()[0]) for process in running)
    assert large < small + 64, f"{small} MiB for an archive of 68 MiB, {large} MiB for one of 388 MiB"


# --- Folds ---


def test_folds_are_sets_of_shards_and_each_image_is_val_once(tmp_path: Path, seeds: Iterator[int]) -> None:
    for name in ("cat", "dog"):
        fill(tmp_path / "images" / name, 7, seeds)
    source = Source(path=str(tmp_path / "images"))
    asked = Preparation(source=source, out=str(tmp_path / "folds"), folds=3, workers=0)
    outcome = prepare(asked)
    assert [fold["examples"]["val"] for fold in outcome["folds"]] == [5, 5, 4]
    seen: list[str] = []
    for number in (1, 2, 3):
        place = tmp_path / "folds" / f"fold-{number}"
        manifest = read_manifest(str(place))
        assert manifest.splitting is not None
        assert (manifest.splitting.folds, manifest.splitting.fold) == (3, number)
        rows = rows_of(place, manifest)
        val, train = ([key for key, _, _ in rows[split]] for split in ("val", "train"))
        assert len({*val, *train}) == 14
        seen += val
    assert len(set(seen)) == len(seen) == 14
    assert prepare(asked)["folds"] == outcome["folds"], "again: nothing to do"
    two = asked.model_copy(update={"folds": 2})
    refused("out must be empty or hold the 2 folds, .* holds fold-3", prepare, two)
