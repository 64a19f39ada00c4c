"""One shard, a Parquet file: written by a task, re-read by verification."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from pipelines.preparation.free_space import told_when_full
from pipelines.preparation.image_encoding import admit
from pipelines.preparation.sources import read_images
from pipelines.preparation.splits import duplicates
from pipelines.preparation.targets.stored_targets import TargetRule, stored_target
from pipelines.shards.manifest import LEDGER, Encoding, Finished, Rejected, Shard, SplitName, Unusual
from pipelines.storage import Folder

SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
    ]
)
TARGETED = SCHEMA.append(pa.field("target", pa.binary(), nullable=False))
# Images are compressed already. A checksum of each page lets a reader of one row group notice a flipped bit.
PARQUET: dict[str, Any] = {
    "compression": {"image": "none", "label": "zstd", "key": "zstd"},
    "use_dictionary": False,
    "write_statistics": ["label", "key"],
    "write_page_checksum": True,
}
NAMED = 20  # keys that are named for each unusual kind
CHUNK = 2**22  # bytes that verification reads at once

Row = tuple[bytes | int | str, ...]  # image, label, key, and target where there is one


@dataclass(frozen=True)
class Work:
    """One shard to write: all that a task needs. rows: of the listing, in order."""

    kind: str
    source: Folder
    out: Folder
    file: str
    split: SplitName
    rows: pa.Table
    row_group_size: int
    encoding: Encoding
    targets: TargetRule | None = None


@dataclass
class Notes:
    """Counters of a task on its way."""

    rejected: list[Rejected] = field(default_factory=list)
    unusual: dict[str, list[str]] = field(default_factory=dict)
    reencoded: int = 0
    digests: bytearray = field(default_factory=bytearray)


def write_shard(work: Work) -> Finished:
    """Read, check and write the images of one shard, then note it in the ledger. Memory: a row group and reads ahead.

    The file is there whole or not at all, and in the ledger only when it is. ValueError, OSError: the source failed;
    ValueError: the disk is full, which is told at once, for waiting and trying again would not help.
    """
    with told_when_full(work.out, work.file, int(work.rows["size"].to_numpy().sum())):
        return _written(work)


def _written(work: Work) -> Finished:
    notes, groups = Notes(), []
    with work.out.writing(work.file) as stream:
        sink = _Hashed(stream)
        schema = SCHEMA if work.targets is None else TARGETED
        parquet = PARQUET | {"compression": PARQUET["compression"] | ({"target": "zstd"} if work.targets else {})}
        with pq.ParquetWriter(sink, schema, **parquet) as writer:
            rows = _admitted(work, notes)
            while group := list(itertools.islice(rows, work.row_group_size)):
                columns = [pa.array(c, f.type) for c, f in zip(zip(*group, strict=True), schema, strict=True)]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=len(group))
                groups.append(len(group))
    shard = Shard(
        file=work.file,
        split=work.split,
        examples=sum(groups),
        row_groups=tuple(groups),
        bytes=sink.size,
        sha256=sink.digest.hexdigest(),
    )
    unusual = tuple(Unusual(what=w, count=len(k), keys=tuple(k[:NAMED])) for w, k in sorted(notes.unusual.items()))
    finished = Finished(
        shard=shard,
        rejected=tuple(notes.rejected),
        unusual=unusual,
        reencoded=notes.reencoded,
        digests=duplicates.digests_as_text(notes.digests),
    )
    with work.out.writing(f"{LEDGER}/{work.file}.json") as stream:
        stream.write(finished.model_dump_json().encode())
    return finished


def _admitted(work: Work, notes: Notes) -> Iterator[Row]:
    """The images that decode, as they are to be stored."""
    keys, labels = work.rows["key"].to_pylist(), work.rows["label"].to_pylist()
    images = read_images(work.kind, work.source, work.rows)
    targets = work.rows["target"].to_pylist() if work.targets else [""] * len(keys)
    for key, label, data, target in zip(keys, labels, images, targets, strict=True):
        try:
            admitted = admit(data, key, work.encoding)
        except ValueError as error:
            notes.rejected.append(Rejected(split=work.split, key=key, reason=str(error)[:200]))
            notes.digests += duplicates.NO_IMAGE
            continue
        notes.digests += duplicates.image_digest(data)
        for what in admitted.unusual:
            notes.unusual.setdefault(what, []).append(key)
        notes.reencoded += admitted.reencoded
        row = admitted.data, label, key
        if work.targets is None:
            yield row
        else:
            yield *row, stored_target(target, work.targets, work.source, admitted.size, key)


class _Hashed:
    """A file for the Parquet writer that counts and hashes what goes through it."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.digest, self.size = stream, hashlib.sha256(), 0
        self.closed = False

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        self.stream.write(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True  # the stream is its owner's to close


def shard_problem(folder: Folder, shard: Shard, classes: int) -> str | None:
    """The first difference between a shard, which is read whole, and its manifest. None: there is none."""
    try:
        found = _hash_of(folder, shard.file)
    except FileNotFoundError:
        return f"{shard.file} is missing"
    except OSError as error:
        return f"{shard.file} cannot be read: {error}"
    if found != (shard.bytes, shard.sha256):
        return f"{shard.file} has {found[0]} bytes and sha256 {found[1]}, the manifest {shard.bytes} and {shard.sha256}"
    with folder.open(shard.file) as stream:
        file = pq.ParquetFile(stream)
        groups = tuple(file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups))
        labels = file.read(["label"])["label"].to_numpy()
    if groups != shard.row_groups or sum(groups) != shard.examples:
        return f"{shard.file} has row groups of {groups} rows, the manifest {shard.row_groups}"
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        return f"{shard.file} has labels {labels.min()} to {labels.max()}, the manifest {classes} classes"
    return None


def _hash_of(folder: Folder, name: str) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with folder.open(name) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
