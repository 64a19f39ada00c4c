"""The images of a tar with their labels: in .cls or .json beside each, in folders' names, or in the tar's name."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from pipelines.preparation.discovery.label_names import TEXTS, with_ids
from pipelines.preparation.discovery.numbered_parts import refuse_missing_parts, refuse_missing_tars
from pipelines.preparation.discovery.passing_over import HIDDEN, SYSTEM, Passing, passed_over_as
from pipelines.preparation.formats.tar_archives import CLASS_LISTS, IMAGE_SUFFIXES, Member, members
from pipelines.preparation.listing import (
    CHUNK,
    WNID,
    Asked,
    Listing,
    chosen_splits,
    container_and_key,
    container_row_and_key,
    some,
    split_of,
    text_file,
)
from pipelines.shards.manifest import SplitName
from pipelines.storage import Folder, side_by_side

JSON_FIELDS = ("label", "cls", "class", "class_id", "label_id", "class_index", "target", "class_name", "category")
BY_FOLDER, BY_TAR = "folder", "tar"  # values of source.label_column that name no field


class Samples:
    """Contents of one tar. labels, jsons: by their names without suffix."""

    def __init__(self, source: Folder, tar: str, asked: Asked, passing: Passing) -> None:
        self.source, self.tar, self.asked = source, tar, asked
        self.images: list[Member] = []
        self.labels: dict[str, str] = {}
        self.jsons: dict[str, Member] = {}
        for member in members(source, tar, texts=".cls"):
            if what := _passed_over(member.name):
                passing.over(what, f"{tar}: {member.name}")
            else:
                self._add(member)

    def _add(self, member: Member) -> None:
        base = member.name.rpartition("/")[2]
        extension = base.partition(".")[2].lower()
        suffix, wanted = extension.rpartition(".")[2], self.asked.image_column
        if suffix == "cls":
            self.labels[member.name[:-4]] = member.text.lstrip("\ufeff").strip()
        elif suffix == "json":
            self.jsons[member.name[:-5]] = member
        elif extension == wanted.lower().lstrip(".") if wanted else suffix in IMAGE_SUFFIXES:
            self.images.append(member)

    def table(self) -> pa.Table:
        """The images with their labels as text. ValueError: an image without label, or a label without image."""
        rows = self._rows()
        parts = [TEXTS.empty_table()]
        while part := list(itertools.islice(rows, CHUNK)):
            columns = zip(zip(*part, strict=True), TEXTS, strict=True)
            parts.append(pa.table([pa.array(column, field.type) for column, field in columns], schema=TEXTS))
        return pa.concat_tables(parts)

    def _rows(self) -> Iterator[tuple[str, str, str, int, int]]:
        column = self.asked.label_column
        if column in (BY_FOLDER, BY_TAR) or (column is None and not self.labels and not self.jsons):
            for image in self.images:
                yield image.name, self._by_name(image), self.tar, image.offset, image.size
            return
        texts: dict[str, Any] = dict(self.labels) if column is None else {}
        beside = {**texts, **{k: m for k, m in self.jsons.items() if k not in texts}}
        used = self._keys(beside)
        with self.source.open(self.tar) as file:
            for image in self.images:
                found = beside[used[image.name]]
                text = found if isinstance(found, str) else self._field(found, file.read_at(found.size, found.offset))
                if not text:
                    raise ValueError(f"{self.tar}: {image.name} needs a .cls with a label beside it, got {text!r}")
                yield image.name, text, self.tar, image.offset, image.size

    def _keys(self, beside: dict[str, Any]) -> dict[str, str]:
        """The key of each image's label: its name up to the last dot that has one, 0001 for 0001.input.jpg."""
        used: dict[str, str] = {}
        owner: dict[str, str] = {}
        for image in self.images:
            key = next((stem for stem in _stems(image.name) if stem in beside), None)
            if key is None:
                raise ValueError(f"{self.tar}: {image.name} needs a .cls or .json with its label beside it")
            if key in owner:
                raise ValueError(
                    f"{self.tar}: {owner[key]} and {image.name} share a key, one image is allowed; "
                    "--source.image-column names the suffix of the one that counts, e.g. input.jpg"
                )
            owner[key], used[image.name] = image.name, key
        alone = sorted(set(self.labels) - set(owner)) if self.asked.label_column is None else []
        if alone:
            raise ValueError(f"{self.tar}: {some(alone)} has a .cls but no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return used

    def _field(self, member: Member, data: bytes) -> str:
        """The label in a .json."""
        try:
            fields: Any = json.loads(data)
        except ValueError:
            raise ValueError(f"{self.tar}: {member.name} must be JSON, it is not") from None
        wanted = (self.asked.label_column,) if self.asked.label_column else JSON_FIELDS
        value = next((fields[n] for n in wanted if n in fields), None) if isinstance(fields, dict) else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int | str):
            holds = some(sorted(fields), 8) if isinstance(fields, dict) and fields else "none"
            raise ValueError(
                f"{self.tar}: {member.name} must have a number or a name in field {' or '.join(map(str, wanted))}, "
                f"its fields are {holds}; --source.label-column names another"
            )
        return str(value).strip()

    def _by_name(self, image: Member) -> str:
        """The class by the image's folder in the tar, else by the tar's own name in the folder of a split."""
        folder = image.name.rpartition("/")[0].rpartition("/")[2]
        inside, _, base = self.tar.rpartition("/")
        stem = base.removesuffix(".tar")
        column = self.asked.label_column
        if folder and column != BY_TAR:
            return folder
        named = WNID.fullmatch(stem) or not (re.search(r"\d$", stem) or split_of(stem))
        if column == BY_TAR or (column is None and split_of(inside) and named):
            return stem
        raise ValueError(
            f"{self.tar}: {image.name} needs a .cls or .json with its label beside it, or a folder that is its class; "
            "--source.label-column tar takes the name of the tar"
        )


def _stems(name: str) -> Iterator[str]:
    """A member's name without its last suffix, without the last two, ...: a/0001.input, a/0001."""
    folder, slash, base = name.rpartition("/")
    while "." in base:
        base = base.rpartition(".")[0]
        yield folder + slash + base


def _passed_over(name: str) -> str | None:
    """The kind of a member that archivers of a Mac add, or that is hidden."""
    *folders, base = name.split("/")
    kinds = [passed_over_as(folder, True) for folder in folders if folder not in ("", ".", "..")]
    return next((kind for kind in (*kinds, passed_over_as(base, False)) if kind in (HIDDEN, SYSTEM)), None)


def webdataset(source: Folder, tars: Sequence[str], asked: Asked) -> Listing:
    """Tars of KEY.jpg (or .png, ...) beside KEY.cls or KEY.json with its label, or of CLASS/FILE, or a tar a class.

    A tar's name or folder tells its split. Keys are the images' names in the tars, with the tar's name before them
    where they repeat. Labels are numbers or names. Names of numbered classes come from `asked.classes`, classnames.txt
    or classes.txt; else from WordNet ids in the keys.
    """
    names = {entry.name for entry in source.entries()}
    class_list = asked.classes or next(
        (text_file(source.read(name), name) for name in CLASS_LISTS if name in names), None
    )
    passing = Passing()
    refuse_missing_parts(tars, asked.allow_missing)
    tables: dict[SplitName, Any] = {
        split: pa.concat_tables(side_by_side(source, lambda tar: Samples(source, tar, asked, passing).table(), mine))
        for split, mine in chosen_splits(tars, asked, passing).items()
    }
    refuse_missing_tars(source, names, tars, {s: t.num_rows for s, t in tables.items()}, asked.allow_missing)
    listing = with_ids("webdataset", source, tables, class_list)
    return replace(listing, passed_over=passing.told()).with_distinct_keys(container_and_key, container_row_and_key)
