"""The listing of a source: every image of its splits, unread, and the classes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from pipelines.preparation.discovery.passing_over import BESIDE_SPLITS, Passing, text_of
from pipelines.shards import imagenet_classes
from pipelines.shards.manifest import ALL_SPLITS, PassedOver, SplitName, Targets, Unusual
from pipelines.storage import Folder
from resnet.image_class import ImageClass

# Where each image lies. path: file in the source; offset: first byte, row or record in it; size: bytes, or their mean.
LISTED = pa.schema(
    [("key", pa.string()), ("label", pa.int32()), ("path", pa.string()), ("offset", pa.int64()), ("size", pa.int64())]
)
pc: Any = pyarrow.compute  # its functions are made at import, a type checker sees none
CHUNK = 2**16  # rows that are Python objects at the same time
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Asked:
    """A person's wishes for the listing of a source.

    classes: text of the list; draws: val or test is drawn from train; sure: the kind was named.
    """

    classes: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    allow_missing: bool = False
    keep_test: bool = False
    draws: bool = False
    sure: bool = False


@dataclass(frozen=True)
class Listing:
    """All images of a source. splits: a table with the columns of LISTED each, sorted by path and offset.

    A table may have one column more, `unit`: rows with the same number can only be read together.
    passed_over, converted: what a person may want to know of the list; notes: sentences for a person. targets: the
    tables have a column `target`, of boxes or of masks' paths, and all labels are 0.
    """

    kind: str
    source: Folder
    classes: tuple[ImageClass, ...]
    splits: dict[SplitName, pa.Table]
    passed_over: tuple[PassedOver, ...] = ()
    converted: tuple[Unusual, ...] = ()
    notes: tuple[str, ...] = ()
    targets: Targets | None = None

    @property
    def present(self) -> tuple[SplitName, ...]:
        """The splits that are there, in order."""
        return tuple(split for split in ALL_SPLITS if split in self.splits)

    @property
    def images(self) -> int:
        """Images of all splits."""
        return sum(table.num_rows for table in self.splits.values())

    @property
    def bytes(self) -> int:
        """Bytes of all images."""
        return sum(int(table["size"].to_numpy().sum()) for table in self.splits.values())

    def checked(self, allow_empty: bool = False) -> Listing:
        """This listing, complete. ValueError: a split or a class without images, a label without class, a key twice."""
        ids, passed = np.arange(len(self.classes)), text_of(self.passed_over)
        for split in self.present:
            table = self.splits[split]
            if not table.num_rows:
                raise ValueError(f"source.path {self.source.uri} has no images in split {split}{passed}")
            labels = table["label"].to_numpy()
            wrong = np.flatnonzero((labels < 0) | (labels >= len(ids)))
            if len(wrong):
                key, label = table["key"][int(wrong[0])], labels[wrong[0]]
                raise ValueError(f"label of {key} must be 0 to {len(ids) - 1}, one of {len(ids)} classes, got {label}")
            if not _all_distinct(table["key"]):
                raise ValueError(f"source.path {self.source.uri} lists a key twice in split {split}")
        if self.targets is not None:  # an image has no class of its own
            return self
        empty = np.setdiff1d(ids, self.splits["train"]["label"].to_numpy())
        there = [i for i in empty if any((self.splits[s]["label"].to_numpy() == i).any() for s in self.present)]
        if there or (len(empty) and not allow_empty):
            names = some([self.classes[i].wnid for i in (there or empty)])
            hint = "" if there else f"; --allow-empty keeps it as a class without images{passed}"
            raise ValueError(f"every class must have images in split train, {names} has none{hint}")
        return self

    def only_in_train(self) -> tuple[str, ...]:
        """Classes of which val has no image."""
        if self.targets is not None:
            return ()
        missing = np.setdiff1d(self.splits["train"]["label"].to_numpy(), self.splits["val"]["label"].to_numpy())
        return tuple(self.classes[i].wnid for i in missing)

    def with_distinct_keys(self, *instead: Callable[[pa.Table], pa.ChunkedArray]) -> Listing:
        """This listing; where a key occurs twice, in one split or in several, all keys are the first distinct ones
        of those that `instead` makes.
        """
        found = self
        for make in instead:
            if found.has_distinct_keys():
                break
            found = replace(self, splits={s: t.set_column(0, "key", make(t)) for s, t in self.splits.items()})
        return found

    def has_distinct_keys(self) -> bool:
        """True if each key occurs once in all splits together."""
        columns = sorted((table["key"] for table in self.splits.values()), key=len)
        pairs = itertools.combinations(columns, 2)  # the smaller first: the memory is that of its hashes
        apart = not any(pc.any(pc.is_in(large, value_set=small)).as_py() for small, large in pairs if len(small))
        return apart and all(map(_all_distinct, columns))


def _all_distinct(keys: pa.ChunkedArray) -> bool:
    """True if no key occurs twice. Keys in order, as of class folders, need no memory for it."""
    in_order = len(keys) < 2 or pc.all(pc.less(keys[:-1], keys[1:])).as_py()
    return in_order or pc.count_distinct(keys).as_py() == len(keys)


def listed(rows: Iterable[tuple[str, int, str, int, int]]) -> pa.Table:
    """A table of (key, label, path, offset, size). Memory: that of the table and of CHUNK rows."""
    parts, rows = [LISTED.empty_table()], iter(rows)
    while part := list(itertools.islice(rows, CHUNK)):
        columns = zip(zip(*part, strict=True), LISTED, strict=True)
        parts.append(pa.table([pa.array(column, field.type) for column, field in columns], schema=LISTED))
    return pa.concat_tables(parts)


def in_order(tables: Sequence[pa.Table]) -> pa.Table:
    """Parts of a split as one table, sorted by path and offset."""
    table = pa.concat_tables([listed([]), *tables], promote_options="default")
    return table.sort_by([("path", "ascending"), ("offset", "ascending")]).combine_chunks()


def container_and_key(table: pa.Table) -> pa.ChunkedArray:
    """Keys that differ between files: the file's name without suffix before them, e.g. train-0000/000017.jpg."""
    stem = pc.replace_substring_regex(table["path"], pattern=r"\.[^./]*$", replacement="")
    return pc.binary_join_element_wise(stem, table["key"], "/")


def container_row_and_key(table: pa.Table) -> pa.ChunkedArray:
    """Keys that differ inside a file too: file and row before them, e.g. train-0000/000017/1.jpg."""
    stem = pc.replace_substring_regex(table["path"], pattern=r"\.[^./]*$", replacement="")
    row = pc.utf8_lpad(pc.cast(table["offset"], pa.string()), 6, "0")
    return pc.binary_join_element_wise(stem, row, table["key"], "/")


def classes_of(wnids: Sequence[str], names: Sequence[str] | None = None) -> tuple[ImageClass, ...]:
    """Classes with ids 0, 1, ... Those of ILSVRC2012 get its human names, others the given ones or their wnid."""
    known = imagenet_classes.names_by_wnid() if set(wnids) <= set(imagenet_classes.wnids()) else {}
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


SPLIT_WORDS: dict[SplitName, set[str]] = {
    "train": {"train", "training"},
    "val": {"val", "valid", "validation"},
    "test": {"test", "testing"},
}


def split_of(name: str) -> SplitName | None:
    """The split that a path tells, by its first part that tells one: train; val, valid, validation; test."""
    for part in name.lower().split("/"):
        words = set(re.split(r"[^a-z]+", part))
        for split in ALL_SPLITS:
            if words & SPLIT_WORDS[split]:
                return split
    return None


def by_split(files: Sequence[str]) -> dict[SplitName, list[str]]:
    """Files by split. Test files count as val only where there are no others; splits without files are left out."""
    found: dict[SplitName, list[str]] = {s: [f for f in files if split_of(f) == s] for s in ALL_SPLITS}
    if not found["val"]:
        found["val"], found["test"] = found["test"], []
    return {split: mine for split, mine in found.items() if mine}


def chosen_splits(files: Sequence[str], asked: Asked, passing: Passing) -> dict[SplitName, list[str]]:
    """Files of each split; all are train's where no name tells a split. Files of test, unless kept, are passed over."""
    found = by_split(files) or {"train": list(files)}
    if not asked.keep_test and "test" in found:
        mine = found.pop("test")
        passing.all_over(BESIDE_SPLITS, mine, len(mine))
    return found


def text_file(data: bytes, name: str) -> str:
    """The text of a file: UTF-8, or UTF-16 with its mark as Windows writes it. ValueError names the file."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} must be text in UTF-8, byte {error.start} is {data[error.start]:#04x}") from None
