"""Images that lie as bytes in files: class folders, and the ranged reads that they share with tar archives."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute

from pipelines import file_names
from pipelines.preparation.discovery.folder_walk import each_file_once, is_above, table_of, walk
from pipelines.preparation.discovery.passing_over import BESIDE, DANGLING, LOOPS, Passing, passed_over_as, text_of
from pipelines.preparation.discovery.split_folders import split_folders
from pipelines.preparation.formats import flat_validation
from pipelines.preparation.listing import Asked, Listing, classes_of, some
from pipelines.shards.manifest import SplitName, Unusual
from pipelines.storage import READERS, Folder

pc: Any = pyarrow.compute  # its functions are made at import, a type checker sees none
ODD = "[\uf780-\uf7ff]"  # what file_names.as_text makes of bytes that are not UTF-8


def class_folders(source: Folder, asked: Asked, above: str = "", names: Mapping[str, str] | None = None) -> Listing:
    """train/ and val/ (or valid/, validation/, test/; in any capitals) with a folder for each class, or classes alone.

    Sorted names are the ids, keys are CLASS/FILE. A val/ without class folders takes its labels from a file, see
    flat_validation. above: folder in the source that holds the splits; names: a human name by class.
    ValueError: no class folder, or a class in val that train does not have.
    """
    passing = Passing()
    folders = split_folders(source, above, asked, passing)
    beside: dict[SplitName, Passing] = {split: Passing() for split in folders}
    found = {split: _class_names(source, folder, beside[split]) for split, folder in folders.items()}
    if not found["train"]:
        passed = text_of(beside["train"].told())
        raise ValueError(f"{source.path(folders['train'])} must hold a folder for each class, it holds none{passed}")
    if not asked.sure:
        _refuse_other_tasks(source.path(folders["train"]), found["train"])
    ids = _ids(found["train"])
    tables: dict[SplitName, pa.Table] = {}
    for split, folder in folders.items():
        truth = None if split == "train" else flat_validation.truth_of(source, folder, found[split])
        if truth is None:
            passing.add(beside[split].told())
            tables[split] = _by_class(source, split, folder, found[split], ids, passing)
        else:
            tables[split] = flat_validation.labelled(source, folder, truth, ids, passing)
    wnids = [file_names.shown_name(name) for name in found["train"]]
    classes = classes_of(wnids, [names.get(w, w) for w in wnids] if names else None)
    listing = Listing(
        "folders", source, classes, tables, passed_over=passing.told(), converted=_odd_names(tables.values())
    )
    return listing.with_distinct_keys(_paths, lambda table: table["path"])


# What other tasks call the folders that lie side by side, in small letters.
OTHER_TASKS = (
    ({"jpegimages", "annotations"}, "boxes as Pascal VOC has them"),
    ({"images", "labels"}, "boxes or masks beside images"),
    ({"images", "annotations"}, "boxes or masks beside images"),
    ({"images", "masks"}, "masks beside images"),
    ({"image", "label"}, "masks beside images"),
    ({"image", "mask"}, "masks beside images"),
)


def _refuse_other_tasks(path: str, names: Sequence[str]) -> None:
    """ValueError: the folders are no classes, but the parts of a set for detection or segmentation."""
    small = {name.lower() for name in names}
    task = next((text for parts, text in OTHER_TASKS if parts <= small), None)
    if task is not None:
        raise ValueError(
            f"{path} must hold a folder for each class, it seems to hold {task} ({some(names)}); "
            "--source.kind folders takes these folders for classes"
        )


def _ids(names: Sequence[str]) -> dict[str, int]:
    """Id by class name. Accents may be written in two ways (NFC, NFD), by one of them on a Mac: they are one class."""
    ids = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names)}
    if len(ids) < len(names):
        same = [n for i, n in enumerate(names) if ids[unicodedata.normalize("NFC", n)] != i]
        raise ValueError(f"names of classes must differ, {some(same)} is there twice, in two forms of Unicode")
    return ids


def _class_names(source: Folder, split: str, passing: Passing) -> list[str]:
    """Sorted names of the class folders of a split."""
    names = []
    for entry in source.entries(split, hidden=True):
        path = f"{split}/{entry.name}".lstrip("/")
        what = passed_over_as(entry.name, entry.is_folder) or (None if entry.is_folder else BESIDE)
        if source.is_local and entry.is_folder and not what and is_above(source.path(path), source.path(split)):
            what = LOOPS
        if what == BESIDE and source.is_local and not os.path.exists(file_names.as_path(source.path(path))):
            what = DANGLING
        if what:
            passing.over(what, file_names.shown_name(path))
        else:
            names.append(entry.name)
    return names


def _by_class(
    source: Folder, split: SplitName, folder: str, present: Sequence[str], ids: Mapping[str, int], passing: Passing
) -> pa.Table:
    """All files of a split. Folders are listed side by side: a listing mostly waits."""
    wanted = [(name, ids.get(unicodedata.normalize("NFC", name))) for name in present]
    unknown = [name for name, label in wanted if label is None]
    if unknown:
        near = [n for n in ids if n.lower() == unknown[0].lower()]
        hint = f" ({near[0]} is: small letters and capitals differ)" if near else ""
        raise ValueError(f"every class in {folder}/ must be in train/ too, {some(unknown)} is not{hint}")

    def of_class(item: tuple[str, int]) -> tuple[pa.Table, Passing]:
        mine, (name, label) = Passing(), item
        files = walk(source, f"{folder}/{name}".lstrip("/"), mine)
        return table_of(files, label, f"{folder}/".lstrip("/")), mine

    with ThreadPoolExecutor(READERS[False]) as pool:
        found = list(pool.map(of_class, [(name, label) for name, label in wanted if label is not None]))
    for _, mine in found:
        passing.add(mine.told())
    return each_file_once([table for table, _ in found], passing)


def _odd_names(tables: Iterable[pa.Table]) -> tuple[Unusual, ...]:
    """Number of the names that are not UTF-8, and the first of them as they are shown."""
    odd = [
        path
        for table in tables
        for path in table["path"].filter(pc.match_substring_regex(table["path"], ODD)).to_pylist()
    ]
    keys = tuple(file_names.shown_name(path) for path in odd[:20])
    return (Unusual(what="name that is not UTF-8, its bytes kept as %XX", count=len(odd), keys=keys),) if odd else ()


def _paths(table: pa.Table) -> pa.ChunkedArray:
    """Keys that differ between splits: the whole paths."""
    if not pc.any(pc.match_substring_regex(table["path"], ODD)).as_py():
        return table["path"]
    return pa.chunked_array([pa.array(map(file_names.shown_name, table["path"].to_pylist()), pa.string())])
