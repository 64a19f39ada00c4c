"""What a source holds: every image of both splits, listed but unread, and the classes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines import imagenet_classes
from pipelines.manifest import SPLITS, Split
from pipelines.storage import Folder
from resnet.classes import ImageClass

# Where each image lies. path: file in the source; offset: first byte, row or record in it; size: bytes, or their mean.
LISTED = pa.schema(
    [("key", pa.string()), ("label", pa.int32()), ("path", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)
pc: Any = pyarrow.compute  # its functions are made at import, a type checker sees none
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Listing:
    """All images of a source. splits: a table with the columns of LISTED each, sorted by path and offset.

    A table may have one column more, `unit`: rows with the same number can only be read together.
    """

    kind: str
    source: Folder
    classes: tuple[ImageClass, ...]
    splits: dict[Split, pa.Table]

    @property
    def images(self) -> int:
        """Images of both splits."""
        return sum(table.num_rows for table in self.splits.values())

    @property
    def bytes(self) -> int:
        """Bytes of all images."""
        return sum(int(table["size"].to_numpy().sum()) for table in self.splits.values())

    def checked(self) -> Listing:
        """This listing, complete. ValueError: a split or a class without images, a label without class, a key twice."""
        ids = np.arange(len(self.classes))
        for split in SPLITS:
            table = self.splits[split]
            if not table.num_rows:
                raise ValueError(f"source.path {self.source.uri} has no images in split {split}")
            labels = table["label"].to_numpy()
            wrong = np.flatnonzero((labels < 0) | (labels >= len(ids)))
            if len(wrong):
                key, label = table["key"][int(wrong[0])], labels[wrong[0]]
                raise ValueError(f"label of {key} must be 0 to {len(ids) - 1}, one of {len(ids)} classes, got {label}")
            if pc.count_distinct(table["key"]).as_py() != table.num_rows:
                raise ValueError(f"source.path {self.source.uri} lists a key twice in split {split}")
        empty = np.setdiff1d(ids, self.splits["train"]["label"].to_numpy())
        if len(empty):
            names = [self.classes[i].wnid for i in empty]
            raise ValueError(f"every class must have images in split train, {some(names)} has none")
        return self

    def with_distinct_keys(self, instead: Callable[[pa.Table], pa.ChunkedArray]) -> Listing:
        """This listing; where a key occurs twice, in one split or in both, all keys are those that `instead` makes."""
        keys = pa.chunked_array([chunk for table in self.splits.values() for chunk in table["key"].chunks], pa.string())
        if pc.count_distinct(keys).as_py() == len(keys):
            return self
        return replace(self, splits={s: t.set_column(0, "key", instead(t)) for s, t in self.splits.items()})


def listed(rows: Iterable[tuple[str, int, str, int, int]]) -> pa.Table:
    """A table of (key, label, path, offset, size)."""
    columns = list(zip(*rows, strict=True)) or [()] * 5
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, LISTED, strict=True)], schema=LISTED)


def in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """Parts of a split as one table, sorted by path and offset."""
    table = pa.concat_tables([listed([]), *tables], promote_options="default")
    return table.sort_by([("path", "ascending"), ("offset", "ascending")]).combine_chunks()


def container_and_key(table: pa.Table) -> pa.ChunkedArray:
    """Keys that differ between files: the file's name without suffix before them, e.g. train-0000/000017.jpg."""
    stem = pc.replace_substring_regex(table["path"], pattern=r"\.[^./]*$", replacement="")
    return pc.binary_join_element_wise(stem, table["key"], "/")


def classes_of(wnids: Sequence[str], names: Sequence[str] | None = None) -> tuple[ImageClass, ...]:
    """Classes with ids 0, 1, ... Those of ILSVRC2012 get its human names, others the given ones or their wnid."""
    known = imagenet_classes.names() if set(wnids) <= set(imagenet_classes.wnids()) else {}
    given = names or wnids
    return tuple(ImageClass(id=i, wnid=w, name=known.get(w, given[i])) for i, w in enumerate(wnids))


def classes_by_keys(train: pa.Table, names: Sequence[str] | None) -> tuple[ImageClass, ...]:
    """Classes of a source that has numbers for labels: WordNet ids from the keys where every key has one, else `names`.

    Without either a class is called by its number.
    """
    labels = train["label"].to_numpy()
    count = len(names) if names else int(labels.max(initial=-1)) + 1
    found = pc.extract_regex(train["key"], pattern=r"(?P<wnid>n\d{8})(?:[^0-9]|$)")
    wnids = np.asarray(pc.struct_field(found, "wnid").to_pylist(), dtype=object)
    pairs = set(zip(labels.tolist(), wnids.tolist(), strict=True))
    by_label = dict(pairs)
    if None not in by_label.values() and len(pairs) == len(by_label) == len(set(by_label.values())) == count:
        return classes_of([by_label[i] for i in sorted(by_label)], names)
    numbers = names or [str(i) for i in range(count)]
    return tuple(ImageClass(id=i, wnid=name, name=name) for i, name in enumerate(numbers))


def read_class_list(text: str) -> tuple[list[str], list[str]]:
    """WordNet ids (or names) and human names from lines such as `n01440764 tench, Tinca tinca`, in the order of ids.

    A line that does not begin with a WordNet id is a name as a whole.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    words = [line.split(None, 1) if WNID.fullmatch(line.split()[0]) else [line] for line in lines]
    return [w[0] for w in words], [w[-1] for w in words]


def some(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names, for a sentence."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def split_of(name: str) -> Split | None:
    """The split that a file's or folder's name tells: train; val, valid, validation; or else test, as val."""
    words = re.split(r"[^a-z]+", name.lower())
    return "train" if "train" in words else "val" if {"val", "valid", "validation", "test"} & set(words) else None


def by_split(files: Sequence[str]) -> dict[Split, list[str]]:
    """Files by split. Test files count as val only where there are no others."""
    found: dict[Split, list[str]] = {s: [f for f in files if split_of(f) == s] for s in SPLITS}
    named = [f for f in found["val"] if re.search(r"(^|[^a-z])val", f.lower())]
    return {"train": found["train"], "val": named or found["val"]}
