"""Row groups are read by their number, whole or parted, and again where a read fails."""

import logging
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyarrow import fs
from pyarrow import parquet as pq

from pipelines import storage
from pipelines.shards import row_groups
from pipelines.shards.row_groups import Split, UnreadableShard, open_split
from tests.pipelines.preparation.sources_on_disk import smooth_folders, write
from tests.s3_server import KEYS, options_of, running, s3_server


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """22 training images in five shards of row groups of four; and two of val."""
    folder = tmp_path_factory.mktemp("row_groups")
    smooth_folders(folder / "images", train=11, val=1)
    write(folder / "images", folder / "out", row_group_size=4)
    return str(folder / "out")


@pytest.fixture
def copy(shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Split:
    """The training images of shards that a test may damage, read twice at once."""
    monkeypatch.setattr(row_groups, "RETRIES", (0.0,))
    return open_split(shutil.copytree(shards, tmp_path / "copy").as_posix(), "train")[1]


def rows_of(split: Split) -> list[tuple[bytes, int]]:
    groups = [split.read(g) for g in range(len(split.rows))]
    return [pair for group in groups for pair in zip(group["image"], group["label"], strict=True)]


def test_row_groups_are_those_of_the_files_in_the_order_of_the_manifest(shards: str) -> None:
    manifest, split = open_split(shards, "train")
    tables = [pq.read_table(Path(shards, shard.file)) for shard in manifest.of_split("train")]
    expected = [(row["image"], row["label"]) for table in tables for row in table.to_pylist()]
    assert rows_of(split) == expected
    assert (split.examples, split.rows) == (22, (4, 4, 4, 4, 4, 2))
    assert split.starts().tolist() == [0, 4, 8, 12, 16, 20, 22]
    assert split.mean_bytes == sum(s.bytes for s in manifest.of_split("train")) / 22
    keys = [key for table in split.tables([5, 0]) for key in table["label"].to_pylist()]
    assert keys == [label for _, label in expected[20:] + expected[:4]]
    assert split.read(1, ("key",)) == {"key": tables[1]["key"].to_pylist()}


@pytest.mark.parametrize("last", [1, 2, 3, 4, 6, 7, 21])
def test_what_is_held_out_are_the_last_images_and_the_rest_the_others(shards: str, last: int) -> None:
    _, split = open_split(shards, "train")
    rows, (first, rest) = rows_of(split), split.parted(last)
    assert rows_of(first) == rows[:-last]
    assert rows_of(rest) == rows[-last:]
    assert (first.examples, rest.examples, rest.name) == (22 - last, last, "val")


@pytest.mark.parametrize("damage", ["gone", "one bit differs", "cut"])
def test_a_shard_that_cannot_be_read_is_named_with_the_way_to_compare_all(copy: Split, damage: str) -> None:
    path = Path(copy.uri, copy.files[1])
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[:-20])
    else:
        data[100] ^= 1
        path.write_bytes(data)
    sentence = rf"shard {copy.files[1]} of \S+ cannot be read .*; `jobs/write_shards.py --out {copy.uri} --verify`"
    with pytest.raises(UnreadableShard, match=sentence) as caught:
        copy.read(1)
    assert "\n" not in str(caught.value)
    assert len(copy.read(0)["image"]) == 4, "another shard is read as ever"


def test_a_shard_that_comes_back_is_read(copy: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_groups, "RETRIES", (0.02,) * 200)
    before, path = copy.read(0), Path(copy.uri, copy.files[0])
    path.rename(path.with_suffix(".away"))
    back = threading.Timer(0.1, path.with_suffix(".away").rename, [path])
    back.start()
    assert copy.read(0) == before
    back.join()


def test_a_row_group_of_a_bucket_is_one_request_after_its_footer(
    shards: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """HEAD for the size, a GET of the footer, and one of both columns. The server logs each request."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    with s3_server("counted") as address:
        uri = f"s3://counted/shards?{options_of(address)}"
        fs.copy_files(shards, "counted/shards", destination_filesystem=fs.FileSystem.from_uri(uri)[0])
        split, local = open_split(uri, "train")[1], open_split(shards, "train")[1]
        with caplog.at_level(logging.INFO, "werkzeug"):
            caplog.clear()
            found = split.table(1)
        asked = re.findall(r"(HEAD|GET|PUT|POST) /counted/shards/(\S+)", "\n".join(caplog.messages))
    assert found.equals(local.table(1))
    assert asked == [(verb, split.files[1]) for verb in ("HEAD", "GET", "GET")]


@pytest.mark.slow
def test_a_bucket_that_is_away_is_waited_for_and_what_it_lacks_is_told_at_once(
    shards: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Moto's servers share their store, so the one that starts later has what the first one was given."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(storage, "LOOK_AGAIN", 0.1)
    monkeypatch.setattr(row_groups, "RETRIES", (0.0,))
    with s3_server("away") as address:
        port, uri = int(address.rpartition(":")[2]), f"s3://away/shards?{options_of(address)}"
        system = fs.FileSystem.from_uri(uri)[0]
        fs.copy_files(shards, "away/shards", destination_filesystem=system)
        _, split = open_split(uri, "train")
        before = split.read(0)
    with ThreadPoolExecutor() as pool:
        reading = pool.submit(split.read, 0)
        with pytest.raises(TimeoutError):
            reading.result(9)  # Arrow itself gives up after 7
        with running(port):
            assert reading.result(60) == before
            assert "away/shards is away, and waited for 15 minutes at most: " in capfd.readouterr().err
            system.delete_file(f"away/shards/{split.files[0]}")
            with pytest.raises(UnreadableShard, match="cannot be read"):
                split.read(0)
    monkeypatch.setattr(row_groups, "OUTAGE", 0.0)
    monkeypatch.setattr(storage, "OUTAGE", 0.0)
    with pytest.raises(UnreadableShard, match=r"has not answered for 0 minutes .* the same command goes on$"):
        split.read(0)


def test_shards_can_be_read_from_any_folder(shards: str, copy: Split) -> None:
    assert rows_of(copy) == rows_of(open_split(shards, "train")[1])
