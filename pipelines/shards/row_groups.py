"""A split of shards: which row group lies where, and reading one, with retries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipelines.shards.manifest import Manifest, read_manifest
from pipelines.shards.shard_cache import ShardCache
from pipelines.storage import OUTAGE, Folder, filesystem, is_outage, patiently, side_by_side

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs

RETRIES = (0.2, 1.0, 5.0)  # seconds before the next try to read a row group

Read = TypeVar("Read")


class UnreadableShard(ValueError):
    """A shard is gone or damaged, after all retries."""


@dataclass(frozen=True)
class Split:
    """The row groups of one split, in the order of the manifest: what a task needs to read any of them."""

    uri: str
    name: str
    files: tuple[str, ...]
    places: tuple[tuple[int, int], ...]  # (file, row group inside it) of each row group
    rows: tuple[int, ...]
    mean_bytes: float  # of an image as it is stored
    before: int = 0  # rows of the first row group that belong to another split
    cache: ShardCache | None = None  # of each node, for whole shards
    contents: tuple[tuple[str, int], ...] = ()  # (sha256, bytes) of each file, where there is a cache

    @classmethod
    def of(cls, manifest: Manifest, uri: str, name: str, cache: ShardCache | None = None) -> Split:
        """The split called train or val."""
        shards = manifest.of_split(name)  # pyright: ignore[reportArgumentType]
        places = tuple((f, g) for f, shard in enumerate(shards) for g in range(len(shard.row_groups)))
        rows = tuple(rows for shard in shards for rows in shard.row_groups)
        mean_bytes = sum(shard.bytes for shard in shards) / max(1, sum(rows))
        files = tuple(shard.file for shard in shards)
        contents = tuple((shard.sha256, shard.bytes) for shard in shards) if cache is not None else ()
        cache = cache and replace(cache, mine=frozenset(shard.sha256 for shard in manifest.shards))
        return cls(uri, name, files, places, rows, mean_bytes, contents=contents, cache=cache)

    @property
    def examples(self) -> int:
        """Images of the split."""
        return sum(self.rows)

    def parted(self, last: int) -> tuple[Split, Split]:
        """All but the last images, and the last: preparation has shuffled, so both are random samples."""
        starts, cut = self.starts(), self.examples - last
        group = int(np.searchsorted(starts, cut, side="right")) - 1
        inside = cut - int(starts[group])
        first = replace(self, places=self.places[: group + 1], rows=(*self.rows[:group], inside))
        if inside == 0:
            first = replace(self, places=self.places[:group], rows=self.rows[:group])
        rest = (self.rows[group] - inside, *self.rows[group + 1 :])
        return first, replace(self, name="val", places=self.places[group:], rows=rest, before=inside)

    def starts(self) -> np.ndarray:
        """(row groups + 1,) examples before each row group: the index of its first example."""
        return np.cumsum([0, *self.rows])

    def read(self, group: int, columns: tuple[str, ...] = ("image", "label")) -> dict[str, list[Any]]:
        """One row group as lists, e.g. {"image": [bytes, ...], "label": [int, ...]}."""
        return self.table(group, columns).to_pydict()

    def table(self, group: int, columns: tuple[str, ...] = ("image", "label")) -> pa.Table:
        """One row group. UnreadableShard: after the retries."""
        file, number = self.places[group]
        table = self._again(file, partial(self._table, file, number, list(columns)))
        return table.slice(self.before if group == 0 else 0, self.rows[group])

    def tables(self, groups: list[int], columns: tuple[str, ...] = ("image", "label")) -> list[pa.Table]:
        """Several row groups, side by side where they come over a network."""
        return side_by_side(Folder(self.uri), partial(self.table, columns=columns), groups)

    def _table(self, file: int, number: int, columns: list[str]) -> pa.Table:
        """A row group of the node's cache, or from where the shard lies. To read labels alone no shard is fetched."""
        from pyarrow import fs

        for _ in range(2 if self.cache is not None and "image" in columns else 0):
            kept = self._kept(file)
            if kept is None:
                break
            try:
                return _row_group(kept, fs.LocalFileSystem(), number, columns)
            except (OSError, ValueError, IndexError):
                assert self.cache is not None
                self.cache.drop(self.contents[file][0])
        system, root = filesystem(self.uri)
        return _row_group(f"{root}/{self.files[file]}", system, number, columns)

    def _kept(self, file: int) -> str | None:
        """The path of a shard in the node's cache."""
        assert self.cache is not None
        system, root = filesystem(self.uri)
        source = partial(system.open_input_stream, f"{root}/{self.files[file]}", compression=None)
        found = self.cache.path(*self.contents[file], source)
        return None if found is None else str(found)

    def _again(self, file: int, read: Callable[[], Read]) -> Read:
        """The result of a read, tried again a few times, and for minutes while its bucket is away."""
        for wait in (*RETRIES, None):
            try:
                return patiently(read, self.uri)
            except (OSError, ValueError, IndexError) as error:  # Arrow's own errors are of these kinds
                if is_outage(error):
                    told = " ".join(str(error).split())
                    raise UnreadableShard(
                        f"{self.uri} has not answered for {OUTAGE / 60:g} minutes ({told}); when it does, the same "
                        "command goes on"
                    ) from None
                if wait is None:
                    told = " ".join(str(error).split())
                    raise UnreadableShard(
                        f"shard {self.files[file]} of {self.uri} cannot be read ({told}); "
                        f"`jobs/write_shards.py --out {self.uri} --verify` compares all shards"
                    ) from None
                time.sleep(wait)
        raise AssertionError("unreachable")


def _row_group(path: str, system: fs.FileSystem, number: int, columns: list[str]) -> pa.Table:
    """A row group of a file."""
    from pyarrow import fs, parquet

    # Each page carries a checksum: a byte that has changed on the way or on the disk is an OSError. Over a network the
    # columns, which lie side by side, come by one request in place of one each.
    far = not isinstance(system, fs.LocalFileSystem)
    with parquet.ParquetFile(path, filesystem=system, page_checksum_verification=True, pre_buffer=far) as shard:
        # In this thread: what Arrow's own allocate lies in heaps that glibc unmaps again and again.
        return shard.read_row_group(number, columns=columns, use_threads=False)


def open_split(uri: str, name: str, cache: ShardCache | None = None) -> tuple[Manifest, Split]:
    """The manifest at a folder or URI, and one of its splits."""
    manifest = read_manifest(uri)
    return manifest, Split.of(manifest, uri, name, cache)
