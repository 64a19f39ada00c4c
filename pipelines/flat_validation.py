"""Validation images without class folders, whose labels lie in a file: tiny-imagenet's, Kaggle's, ILSVRC2012's."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipelines import file_names
from pipelines.folder_walk import File, walk
from pipelines.listing import WNID, in_order, listed, some, text_file
from pipelines.passing_over import Passing
from pipelines.storage import Folder

TINY, KAGGLE, TRUTH = "val_annotations.txt", "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt"
INSIDE_KAGGLE = "ILSVRC/Data/CLS-LOC"  # below the folder that Kaggle's archive unpacks to


class Truth(dict[str, str]):
    """Class by file name without suffix. file: where it was read."""

    def __init__(self, file: str, labels: Mapping[str, str]) -> None:
        super().__init__(labels)
        self.file = file


def truth_of(source: Folder, val: str, class_folders: Sequence[str]) -> Truth | None:
    """The labels of a flat split; None: it has class folders. ValueError: it has neither."""
    names = {entry.name for entry in source.entries(val)}
    if TINY in names:
        return _tiny(text_file(source.read(f"{val}/{TINY}"), f"{val}/{TINY}"), f"{val}/{TINY}")
    if class_folders:
        return None
    for folder, name in ((source, KAGGLE), (_above_kaggle(source), KAGGLE)):
        if folder is not None and name in {entry.name for entry in folder.entries()}:
            return _kaggle(text_file(folder.read(name), name), name)
    if TRUTH in _development_kit(source):
        from pipelines.tars import validation_wnids

        wnids = validation_wnids(source, {entry.name for entry in source.entries()}, None)
        return Truth(TRUTH, {f"ILSVRC2012_val_{i:08d}": wnid for i, wnid in enumerate(wnids, start=1)})
    raise ValueError(
        f"{source.path(val)} must hold a folder for each class, it holds {len(names)} files and folders and none of a "
        f"class; labels of a flat {val}/ are read from {val}/{TINY}, {KAGGLE}, or {TRUTH} with meta.mat, beside it"
    )


def _development_kit(source: Folder) -> set[str]:
    """Names of the ground truth that lie in the source, or in ILSVRC2012's development kit there."""
    from pipelines.tars import development_kit

    return set(development_kit(source, {entry.name for entry in source.entries()}))


def _above_kaggle(source: Folder) -> Folder | None:
    """The folder that holds Kaggle's solution, where the source is its CLS-LOC folder itself."""
    head, mark, options = source.uri.partition("?") if "://" in source.uri else (source.uri, "", "")
    root = head.rstrip("/").removesuffix(f"/{INSIDE_KAGGLE}")
    return Folder(root + mark + options) if root != head.rstrip("/") else None


def _tiny(text: str, file: str) -> Truth:
    """tiny-imagenet-200: val_0.JPEG, a tab, n03444034, and a box that is not needed."""
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    wrong = next((i for i, row in enumerate(rows, start=1) if len(row) < 2 or not WNID.fullmatch(row[1])), None)
    if wrong is not None:
        raise ValueError(f"{file} must have a file, a tab and a WordNet id on each line, line {wrong} has not")
    return Truth(file, {_stem(row[0]): row[1] for row in rows})


def _kaggle(text: str, file: str) -> Truth:
    """Kaggle's ImageNet: ImageId, and PredictionString such as n03995372 85 1 499 272."""
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or not {"ImageId", "PredictionString"} <= set(rows[0]):
        raise ValueError(
            f"{file} must have columns ImageId and PredictionString, it has {some(list(rows[0]) if rows else [])}"
        )
    words = {row["ImageId"]: (row["PredictionString"] or "").split() for row in rows}
    wrong = [image for image, found in words.items() if not found or not WNID.fullmatch(found[0])]
    if wrong:
        raise ValueError(f"{file} must begin each PredictionString with a WordNet id, that of {some(wrong)} does not")
    return Truth(file, {_stem(image): found[0] for image, found in words.items()})


def _stem(name: str) -> str:
    return name.rpartition("/")[2].partition(".")[0]


def labelled(source: Folder, folder: str, truth: Truth, ids: Mapping[str, int], passing: Passing) -> pa.Table:
    """The images below a folder with the labels of a file. Keys are CLASS/FILE. ValueError: one without the other."""
    files = list(walk(source, folder, passing))
    alone = [f.path for f in files if _stem(f.path) not in truth]
    if alone:
        raise ValueError(f"{truth.file} must have a line for each of {len(files)} images, {some(alone)} has none")
    missing = sorted(set(truth) - {_stem(f.path) for f in files})
    if missing:
        raise ValueError(
            f"{folder} must hold each of the {len(truth)} images of {truth.file}, {some(missing)} is missing"
        )
    unknown = sorted(set(truth.values()) - set(ids))
    if unknown:
        raise ValueError(f"every class in {truth.file} must be in train/ too, {some(unknown)} is not")

    def row(file: File) -> tuple[str, int, str, int, int]:
        wnid = truth[_stem(file.path)]
        return f"{wnid}/{file_names.shown(file.path).rpartition('/')[2]}", ids[wnid], file.path, 0, file.size

    return in_order([listed(map(row, files))])


def names_of(source: Folder, file: str) -> dict[str, str]:
    """Human name by WordNet id, from lines of an id, a tab or space, and names. Empty where the file is not there."""
    if file not in {entry.name for entry in source.entries()}:
        return {}
    lines = text_file(source.read(file), file).splitlines()
    return {words[0]: words[1].strip() for line in lines if len(words := line.split(None, 1)) == 2}
