"""Groups of images that must lie on one side of a split, such as the pictures of one patient, person or slide."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from pipelines.preparation.listing import some, text_file
from pipelines.storage import Folder
from resnet.frozen import FrozenSettings

# Columns that name the image, in the order in which they are taken, in small letters.
FILE_COLUMNS = (
    "file_name",
    "filename",
    "file",
    "path",
    "key",
    "image",
    "image_path",
    "image_id",
    "imageid",
    "id",
    "name",
)


class GroupBy(FrozenSettings):
    """The place of an image's group; at most one of three is given."""

    csv: Annotated[str | None, Field(description="file with a line for each image")] = None
    column: Annotated[str | None, Field(description="its column that holds the group")] = None
    part: Annotated[int | None, Field(description="part of the image's path: 1 the first, -1 its folder")] = None
    pattern: Annotated[str | None, Field(description="regular expression on the image's path")] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.csv is None) != (self.column is None):
            raise ValueError(f"group_csv and group_column must be given together, got {self.csv} and {self.column}")
        if sum(given is not None for given in (self.csv, self.part, self.pattern)) > 1:
            raise ValueError("one of group_csv, group_part and group_pattern may be given, got several")
        if self.part == 0:
            raise ValueError("group_part must count from 1, or from -1 backwards, got 0")
        if self.pattern is not None:
            _compiled(self.pattern)
        return self

    @property
    def given(self) -> bool:
        """True if images are grouped at all."""
        return self.description is not None

    @property
    def description(self) -> str | None:
        """For a record and a sentence; None: no groups."""
        if self.csv is not None:
            return f"column {self.column} of {self.csv}"
        if self.part is not None:
            return f"part {self.part} of the path"
        return None if self.pattern is None else f"pattern {self.pattern} of the path"


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"group_pattern must be a regular expression, got {pattern!r}: {error}") from None
    if compiled.groups > 1:
        raise ValueError(f"group_pattern must have one pair of brackets at most, {pattern!r} has {compiled.groups}")
    return compiled


def groups_of(by: GroupBy, keys: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The group of each image. ValueError: an image has none, or all have the same."""
    if by.csv is not None:
        assert by.column is not None
        groups = _by_csv(by.csv, by.column, keys, paths)
    elif by.part is not None:
        groups = [_part(key, by.part) for key in keys]
    else:
        compiled = _compiled(by.pattern or "")
        groups = [m.group(compiled.groups) if (m := compiled.search(key)) else None for key in keys]
    without = [key for key, group in zip(keys, groups, strict=True) if not group]
    if without:
        raise ValueError(
            f"every image must have a group by {by.description}, {len(without)} have none: {some(without)}"
        )
    if len(set(groups)) < 2:
        raise ValueError(
            f"images must be of two groups at least by {by.description}, all {len(keys)} are of {groups[0]}"
        )
    return [group or "" for group in groups]


def _part(key: str, part: int) -> str | None:
    folders = key.split("/")[:-1]
    place = part - 1 if part > 0 else part
    return folders[place] if -len(folders) <= place < len(folders) else None


def _by_csv(file: str, column: str, keys: Sequence[str], paths: Sequence[str]) -> list[str | None]:
    """Groups by the lines of a CSV, whose images are named by key, path or file name, with or without suffix."""
    groups = _lines(file, column)
    found: list[str | None] = []
    for key, path in zip(keys, paths, strict=True):
        names = (key, path, path.rpartition("/")[2], key.rpartition("/")[2])
        names += tuple(name.rpartition(".")[0] for name in names)
        found.append(next((groups[name] for name in names if name in groups), None))
    return found


def _lines(file: str, column: str) -> Mapping[str, str | None]:
    """Group by the name of an image. ValueError: no such file or column, or an image in two groups."""
    parent, _, name = file.rpartition("/")
    try:
        text = text_file(Folder(parent or ".").read(name), f"group_csv {file}")
    except OSError:
        raise ValueError(f"group_csv must be a file that can be read, got {file}") from None
    lines = text.splitlines()
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    rows = csv.DictReader(lines, delimiter=delimiter)
    header = rows.fieldnames or []
    images = next((h for wanted in FILE_COLUMNS for h in header if h.strip().lower() == wanted), None)
    if column not in header or images is None:
        missing = column if column not in header else f"one of {', '.join(FILE_COLUMNS)}"
        raise ValueError(f"group_csv {file} must have a column {missing}, it has {', '.join(header)}")
    groups: dict[str, str | None] = {}
    for row in rows:
        image, group = (row[images] or "").strip().replace("\\", "/"), (row[column] or "").strip() or None
        if groups.setdefault(image, group) != group:
            raise ValueError(
                f"group_csv {file} must have one {column} an image, {image} has {groups[image]} and {group}"
            )
    return groups
