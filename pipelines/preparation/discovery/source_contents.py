"""The contents of a source's path: names, and the Parquet files and tars that are looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import NamedTuple

from pyarrow.fs import FileType

from pipelines import file_names
from pipelines.preparation.discovery.passing_over import passed_over_as
from pipelines.preparation.discovery.split_folders import ALL_NAMES
from pipelines.preparation.formats import cifar
from pipelines.preparation.listing import by_split
from pipelines.storage import Folder

# Folders in which Parquet files and tars are looked for, beside the one that is named.
INSIDE = {"data", "default", *ALL_NAMES}
COMPRESSED = (".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst")


class Contents(NamedTuple):
    """Contents of a source's folder. names: of its entries; chosen: whether a file matches the glob that was given."""

    folder: Folder
    names: set[str]
    chosen: Callable[[str], bool]

    def files(self, suffix: str) -> list[str]:
        """Files with a suffix, here or in one of the folders INSIDE."""
        return [path for path in _walk(self.folder, suffix, "", 2) if self.chosen(path)]


def _walk(folder: Folder, suffix: str, inside: str, depth: int) -> Iterator[str]:
    for entry in folder.entries(inside):
        path = f"{inside}/{entry.name}" if inside else entry.name
        if entry.is_folder and depth and entry.name.lower() in INSIDE:
            yield from _walk(folder, suffix, path, depth - 1)
        elif not entry.is_folder and entry.name.endswith(suffix):
            yield path


def has_splits(contents: Contents, suffix: str) -> bool:
    """True if files with a suffix have names of train and of val."""
    return {"train", "val"} <= set(by_split(contents.files(suffix)))


def has_class_folders(contents: Contents) -> bool:
    """True if one of the folders holds a file that may be an image, in it or in a folder below, such as a patient's."""
    return any(_holds_images(contents.folder, name, 3) for name in sorted(contents.names))


def _holds_images(folder: Folder, name: str, depth: int) -> bool:
    if passed_over_as(name.rpartition("/")[2], True) is not None:
        return False
    entries = folder.entries(name)
    if any(not e.is_folder and passed_over_as(e.name, False) is None for e in entries):
        return True
    return depth > 1 and any(_holds_images(folder, f"{name}/{e.name}", depth - 1) for e in entries if e.is_folder)


def contents_of(path: str) -> Contents:
    """The contents of a source's path, whose last part may be a glob. CIFAR's folder may lie in the one named."""
    if not file_names.is_utf8(path):
        raise ValueError(
            f"source.path must be UTF-8, got {file_names.shown_name(file_names.as_text(path))}; rename the folder"
        )
    head, mark, options = path.partition("?") if "://" in path else (path, "", "")
    parent, _, last = head.rstrip("/").rpartition("/")
    pattern = last if set("*[") & set(last) else None
    folder = Folder((parent or "." if pattern else head) + mark + options)
    found = folder.kind()
    if found == FileType.NotFound:
        raise ValueError(f"source.path must exist, {path} does not")
    if found == FileType.File:
        hint = "a compressed archive, unpack it first" if path.endswith(COMPRESSED) else "a file"
        raise ValueError(f"source.path must be a folder that holds train and val, {path} is {hint}")
    names = {entry.name for entry in folder.entries()}
    for form in cifar.FORMS:
        if form.folder in names:
            return contents_of(f"{head.rstrip('/')}/{form.folder}{mark}{options}")
    return Contents(folder, names, lambda file: pattern is None or fnmatch(file.rpartition("/")[2], pattern))


def inside_alone(path: str, contents: Contents) -> Iterator[Contents]:
    """The contents of the folder that lies alone at a path, or alone in that one, three deep at most."""
    for _ in range(3):
        folders = [e.name for e in contents.folder.entries() if e.is_folder and passed_over_as(e.name, True) is None]
        if len(folders) != 1:
            return
        head, mark, options = path.partition("?") if "://" in path else (path, "", "")
        path = f"{head.rstrip('/')}/{folders[0]}{mark}{options}"
        contents = contents_of(path)
        yield contents
