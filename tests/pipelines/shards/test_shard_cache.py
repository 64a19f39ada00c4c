"""Shards on a node's own disk: whole, verified, bounded, shared; and nothing that goes wrong there stops a reader."""

import errno
import hashlib
import io
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.data_settings import Data
from pipelines.shards import shard_cache
from pipelines.shards.row_groups import Split, open_split
from pipelines.shards.shard_cache import ShardCache
from tests.pipelines.preparation.sources_on_disk import smooth_folders, write

CONTENT = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_cache, "_off_until", {})


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """22 training images in row groups of four, and two of val."""
    folder = tmp_path_factory.mktemp("cached")
    smooth_folders(folder / "images", train=11, val=1)
    write(folder / "images", folder / "out", row_group_size=4)
    return folder / "out"


def of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def no_source() -> Any:
    raise AssertionError("the source is not asked")


def fetch(cache: ShardCache, content: bytes, source: Callable[[], Any] | None = None) -> Path | None:
    return cache.path(of(content), len(content), source or (lambda: io.BytesIO(content)))


def aged(entry: Path, seconds: float) -> None:
    then = entry.stat().st_mtime - seconds
    os.utime(entry, (then, then))


def held(cache: ShardCache) -> set[str]:
    return {path.name for path in cache.place.iterdir()} - {shard_cache.LOCK}


def read(split: Split) -> list[dict[str, list[Any]]]:
    return [split.read(group) for group in range(len(split.rows))]


def test_a_shard_is_fetched_once_and_then_read_without_its_source(tmp_path: Path) -> None:
    cache = ShardCache(2 * len(CONTENT), str(tmp_path / "new" / "cache"))
    entry = fetch(cache, CONTENT)
    assert entry is not None
    assert entry.read_bytes() == CONTENT
    assert fetch(cache, CONTENT, no_source) == entry
    assert held(cache) == {entry.name}


def test_what_is_not_the_manifests_shard_is_not_kept(tmp_path: Path) -> None:
    cache = ShardCache(2**20, str(tmp_path))
    for other in (CONTENT[:-1] + b"x", CONTENT[:-9], CONTENT + b"more", b""):
        assert fetch(cache, CONTENT, lambda other=other: io.BytesIO(other)) is None
        assert held(cache) == set()
        shard_cache._off_until.clear()
    assert fetch(cache, CONTENT) is not None


def test_a_bucket_that_is_away_leaves_nothing_and_does_not_turn_the_cache_off(tmp_path: Path) -> None:
    class Away(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 4096:
                raise OSError("AWS Error NETWORK_CONNECTION")
            return super().read(4096)

    def gone() -> Any:
        raise FileNotFoundError(errno.ENOENT, "Path does not exist")

    cache = ShardCache(2**20, str(tmp_path))
    for source in (lambda: Away(CONTENT), gone):
        assert fetch(cache, CONTENT, source) is None
        assert held(cache) == set()
    assert fetch(cache, CONTENT) is not None


def test_shards_of_other_data_make_room_the_oldest_first_and_ones_own_never(tmp_path: Path) -> None:
    contents = [bytes([i]) * 1000 for i in range(7)]
    others = ShardCache(3000, str(tmp_path))
    entries = [fetch(others, content) for content in contents[:3]]
    for age, entry in zip((300, 100, 200), entries, strict=True):
        assert entry is not None
        aged(entry, age)
    mine = ShardCache(3000, str(tmp_path), frozenset(of(content) for content in contents[3:]))
    names = [f"{of(content)}.parquet" for content in contents]
    expected = [{1, 2, 3}, {1, 3, 4}, {3, 4, 5}]  # 0, 2 and 1 were used in this order
    for content, left in zip(contents[3:6], expected, strict=True):
        assert fetch(mine, content) is not None
        assert held(mine) == {names[i] for i in left}
    assert fetch(mine, contents[6]) is None, "only shards of these data are here"
    assert fetch(mine, contents[6], no_source) is None, "and it is not tried again at once"
    assert held(mine) == {names[i] for i in (3, 4, 5)}
    shard_cache._off_until.clear()
    assert fetch(ShardCache(999, str(tmp_path)), contents[6]) is None, "it would not fit into an empty one"


def test_a_used_entry_is_younger_than_one_that_was_fetched_later(tmp_path: Path) -> None:
    cache = ShardCache(2000, str(tmp_path))
    for age, content in ((200, b"a" * 1000), (100, b"b" * 1000)):
        entry = fetch(cache, content)
        assert entry is not None
        aged(entry, age)
    fetch(cache, b"a" * 1000, no_source)
    fetch(cache, b"c" * 1000)
    assert held(cache) == {f"{of(letter * 1000)}.parquet" for letter in (b"a", b"c")}


def test_one_process_fetches_and_another_is_not_held_up(tmp_path: Path) -> None:
    cache, begun, go = ShardCache(2**20, str(tmp_path)), threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            begun.set()
            assert go.wait(30)
            return super().read(size)

    found: list[Path | None] = []
    thread = threading.Thread(target=lambda: found.append(fetch(cache, CONTENT, lambda: Slow(CONTENT))))
    thread.start()
    assert begun.wait(30)
    assert fetch(cache, CONTENT, no_source) is None
    go.set()
    thread.join(30)
    assert found == [cache.entry(of(CONTENT))]
    assert fetch(cache, CONTENT, no_source) == found[0]


def test_what_a_killed_process_left_is_fetched_anew(tmp_path: Path) -> None:
    cache = ShardCache(2 * len(CONTENT), str(tmp_path))
    cache.entry(of(CONTENT)).with_suffix(".part").write_bytes(b"x" * (len(CONTENT) + 100))
    entry = fetch(cache, CONTENT)
    assert entry is not None
    assert entry.read_bytes() == CONTENT
    assert held(cache) == {entry.name}


def test_a_full_disk_is_one_line_and_the_shards_are_streamed(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_room)
    expected = read(open_split(str(shards), "train")[1])
    split = open_split(str(shards), "train", ShardCache(2**30, str(tmp_path / "cache")))[1]
    with caplog.at_level(logging.WARNING):
        assert read(split) == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"the cache of shards in {tmp_path / 'cache'} is not used, shards are streamed: its disk is full"
    ]
    assert held(split.cache or ShardCache(0)) == set()


def test_a_folder_that_cannot_be_made_is_one_line(
    tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    split = open_split(str(shards), "train", ShardCache(2**30, str(tmp_path / "file" / "cache")))[1]
    assert len(read(split)) == 6
    assert len(caplog.records) == 1
    assert "Not a directory" in caplog.records[0].getMessage()


def test_rows_come_from_the_cache_bit_for_bit_and_labels_fetch_nothing(tmp_path: Path, shards: Path) -> None:
    manifest, plain = open_split(str(shards), "train")
    split = open_split(str(shards), "train", ShardCache(2**30, str(tmp_path)))[1]
    split.read(0, ("label",))
    assert held(split.cache or ShardCache(0)) == set()
    assert read(split) == read(plain)
    assert held(split.cache or ShardCache(0)) == {f"{shard.sha256}.parquet" for shard in manifest.of_split("train")}
    for shard in manifest.of_split("train"):
        assert of((tmp_path / f"{shard.sha256}.parquet").read_bytes()) == shard.sha256


@pytest.mark.parametrize("damage", ["one bit differs", "cut", "other bytes"])
def test_a_damaged_entry_is_fetched_again(
    tmp_path: Path, shards: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest, split = open_split(str(shards), "train", ShardCache(2**30, str(tmp_path)))
    before, sha256 = split.read(0), manifest.of_split("train")[0].sha256
    entry = tmp_path / f"{sha256}.parquet"
    data = bytearray(entry.read_bytes())
    data[100] ^= 1
    changed = {"one bit differs": bytes(data), "cut": bytes(data[:-20]), "other bytes": b"x" * len(data)}[damage]
    entry.write_bytes(changed)
    assert split.read(0) == before
    assert of(entry.read_bytes()) == sha256
    told = [record.getMessage() for record in caplog.records]
    assert told == ([] if damage == "cut" else [f"a damaged shard in {tmp_path} is fetched again: {sha256}"])


def test_val_takes_no_room_from_train(tmp_path: Path, shards: Path) -> None:
    manifest, train = open_split(str(shards), "train")
    size = sum(shard.bytes for shard in manifest.of_split("train"))
    cache = ShardCache(size, str(tmp_path))
    read(open_split(str(shards), "train", cache)[1])
    before = held(cache)
    read(open_split(str(shards), "val", cache)[1])
    assert held(cache) == before
    assert len(before) == len(train.files)


def test_a_run_says_how_much_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_HOME", str(tmp_path))
    assert ShardCache.of(Data()) is None
    assert ShardCache.of(Data(cache_size=1.5)) == ShardCache(3 * 2**29)
    assert ShardCache(1).place == tmp_path / "cache"
    assert ShardCache.of(Data(cache_size=2, cache_path="/mnt/nvme")) == ShardCache(2**31, "/mnt/nvme")
