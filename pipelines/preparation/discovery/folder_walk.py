"""All files below a folder, on a disk or in a bucket: each real file once, and what is passed over by kind."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines import file_names
from pipelines.preparation.discovery.passing_over import DANGLING, LOOPS, SPECIAL, TWICE, Passing, passed_over_as
from pipelines.preparation.listing import LISTED
from pipelines.storage import Folder

CHUNK = 2**13  # files that are Python objects at the same time in a thread; the rest lies in Arrow's columns
COLUMNS = pa.schema([*LISTED, ("file", pa.int64()), ("linked", pa.bool_())])
Real = tuple[int, int]  # device and inode: two paths of one file or folder share them


class File(NamedTuple):
    """A file. number: of the real file, 0 where there are no links; linked: reached by a link."""

    path: str
    size: int
    number: int
    linked: bool


def walk(folder: Folder, inside: str, passing: Passing) -> Iterator[File]:
    """The files below a folder, with paths from the source's root. ValueError: a folder that cannot be read."""
    if folder.is_local:
        root = folder.path()
        start = file_names.as_path(folder.path(inside))
        yield from _walk_local(root, start, inside, os.path.islink(start), _above(start), passing)
    else:
        yield from _walk_remote(folder, inside, passing)


def _walk_remote(folder: Folder, inside: str, passing: Passing) -> Iterator[File]:
    for entry in folder.entries(inside, hidden=True):
        path, what = f"{inside}/{entry.name}".lstrip("/"), passed_over_as(entry.name, entry.is_folder)
        if what:
            passing.over(what, path)
        elif entry.is_folder:
            yield from _walk_remote(folder, path, passing)
        else:
            yield File(path, entry.size, 0, False)


def _above(path: str) -> set[Real]:
    """A folder and all folders above it, as they really lie: to enter one of them again is a loop."""
    found, real = set(), os.path.realpath(path)
    while True:
        found.add(_real(os.stat(real)))
        if real == (parent := os.path.dirname(real)):
            return found
        real = parent


def is_above(folder: str, other: str) -> bool:
    """True if a folder is another one or holds it, as they really lie."""
    real = os.path.realpath(file_names.as_path(folder))
    return f"{os.path.realpath(file_names.as_path(other))}/".startswith(f"{real.rstrip('/')}/")


def _real(status: os.stat_result) -> Real:
    return status.st_dev, status.st_ino


def _walk_local(
    root: str, start: str, inside: str, linked: bool, entered: set[Real], passing: Passing
) -> Iterator[File]:
    """One folder after the other; each real folder is entered once, by the first of its paths in a sorted walk."""
    left = [(start, inside, linked)]
    while left:
        system_path, told_path, linked = left.pop()
        folders: list[tuple[str, str, bool, Real]] = []
        for entry in _entries(system_path, told_path):
            path = f"{told_path}/{file_names.as_text(entry.name)}".lstrip("/")
            try:
                is_folder, status = entry.is_dir(), entry.stat()
            except OSError:
                passing.over(DANGLING if entry.is_symlink() else SPECIAL, file_names.shown_name(path))
                continue
            what = passed_over_as(entry.name, is_folder) or _special(status)
            by_link = linked or entry.is_symlink()
            if what:
                passing.over(what, file_names.shown_name(path))
            elif is_folder:
                folders.append((entry.path, path, by_link, _real(status)))
            else:
                yield File(path, status.st_size, hash(_real(status)) or 1, by_link)
        for folder in sorted(folders):
            if folder[3] in entered:
                passing.over(LOOPS, file_names.shown_name(folder[1]))
        left += [folder[:3] for folder in sorted(folders, reverse=True) if folder[3] not in entered]
        entered |= {folder[3] for folder in folders}


def _special(status: os.stat_result) -> str | None:
    return None if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) else SPECIAL


def _entries(system_path: str, told_path: str) -> Iterator[os.DirEntry[str]]:
    """A folder's entries as the system gives them, never all at once: a class may have millions of files."""
    try:
        with os.scandir(system_path) as found:
            yield from found
    except OSError as error:
        raise ValueError(f"folder {file_names.shown_name(told_path)} cannot be read: {error.strerror}") from None


def table_of(files: Iterable[File], label: int, below: str) -> pa.Table:
    """Files of one class as a table. Keys are their paths without `below`, with %XX for bytes that are not UTF-8."""
    parts, files = [COLUMNS.empty_table()], iter(files)
    while some := list(itertools.islice(files, CHUNK)):
        keys = [file_names.shown_name(f.path.removeprefix(below)) for f in some]
        columns = [
            keys, [label] * len(some), [f.path for f in some], [0] * len(some), [f.size for f in some],
            [f.number for f in some], [f.linked for f in some],
        ]  # fmt: skip
        parts.append(pa.table([pa.array(c, f.type) for c, f in zip(columns, COLUMNS, strict=True)], schema=COLUMNS))
    return pa.concat_tables(parts).sort_by([("path", "ascending")])


def each_file_once(tables: list[pa.Table], passing: Passing) -> pa.Table:
    """The tables of a split together, sorted by path, without links to files that are listed at another path.

    Files at their own place stay, of several links to one file the first by path; two hard links are two files.
    Memory: the tables and one copy of them. Each table is of one folder and sorted; together they are by their order.
    """
    tables = sorted((table for table in tables if table.num_rows), key=lambda table: table["path"][0].as_py())
    table = pa.concat_tables([COLUMNS.empty_table(), *tables])
    linked = table["linked"].to_numpy()
    if linked.any():
        numbers = table["file"].to_numpy()
        _, first = np.unique(numbers[linked], return_index=True)
        keep = ~linked
        keep[np.flatnonzero(linked)[first]] = True
        keep &= ~(linked & np.isin(numbers, numbers[~linked]))
        twice = table.filter(pa.array(~keep))["path"]
        if len(twice):
            passing.all_over(TWICE, map(file_names.shown_name, twice[:20].to_pylist()), len(twice))
        table = table.filter(pa.array(keep))
    return table.select(LISTED.names).combine_chunks()
