"""Folders of train, val and test inside a source, by their names; or none, where classes lie side by side."""

from __future__ import annotations

from collections.abc import Collection

from pipelines.listing import Asked
from pipelines.manifest import Split
from pipelines.passing_over import BESIDE, Passing, kind_of
from pipelines.storage import Folder

# In the order in which they are taken, in any capitals.
NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
ALL_NAMES = frozenset(name for names in NAMES.values() for name in names)


def by_name(folders: Collection[str]) -> dict[Split, str]:
    """The folder of each split that is there; test counts as val where there is no other. ValueError: two of a name."""
    found: dict[Split, str] = {}
    for split, names in NAMES.items():
        mine = sorted((f for f in folders if f.lower() in names), key=lambda f: (names.index(f.lower()), f))
        if len(mine) > 1 and mine[0].lower() == mine[1].lower():
            raise ValueError(f"source.path must hold one folder for split {split}, it holds {' and '.join(mine[:2])}")
        if mine:
            found[split] = mine[0]
    if "val" not in found and "test" in found:
        found["val"] = found.pop("test")
    return found


def split_folders(source: Folder, above: str, asked: Asked, passing: Passing) -> dict[Split, str]:
    """Path of each split's folder in the source, "" for one without splits. What else lies there is passed over."""
    entries = source.entries(above, hidden=True)
    folders = [e.name for e in entries if e.is_folder and kind_of(e.name, True) is None]
    found = by_name(folders)
    if "train" not in found and found and any(f.lower() not in ALL_NAMES for f in folders):
        found = {}  # classes side by side, one of which is called test
    if "train" not in found and found:
        raise ValueError(f"source.path {source.uri} must hold train/ and val/ by class, train/ is missing")
    if list(found) == ["train"] and len(folders) > 1 and not _has_folders(source, f"{above}/{found['train']}"):
        found = {}  # classes side by side, one of which is called train
    if not found:
        return {"train": above}
    if not asked.keep_test:
        found.pop("test", None)
    for entry in entries:
        if entry.name not in found.values():
            what = kind_of(entry.name, entry.is_folder) or BESIDE
            passing.over(what, f"{above}/{entry.name}".lstrip("/") + "/" * entry.is_folder)
    return {split: f"{above}/{name}".lstrip("/") for split, name in found.items()}


def _has_folders(source: Folder, path: str) -> bool:
    return any(e.is_folder for e in source.entries(path.lstrip("/")))
