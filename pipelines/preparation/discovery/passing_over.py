"""The entries that a listing passes over, by kind: system folders, files that are no images, broken links."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from pipelines.shards.manifest import PassedOver
from pipelines.storage import is_hidden

NAMED = 20  # files that are named for each kind
# What file managers, network storage, archivers and notebooks leave behind, in small letters.
SYSTEM_FOLDERS = {
    "__macosx", "@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "$recycle.bin",
    "system volume information", "recycler", "__pycache__", "network trash folder", "temporary items",
}  # fmt: skip
SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "_success"}
# What lies beside images and is none. A name without suffix, or with one that is not here, may be an image.
NO_IMAGES = {
    "csv", "tsv", "json", "jsonl", "ndjson", "txt", "md", "xml", "html", "htm", "yaml", "yml", "log", "pdf", "doc",
    "docx", "xls", "xlsx", "py", "ipynb", "mat", "npy", "npz", "pkl", "pickle", "h5", "hdf5", "parquet", "arrow",
    "tar", "zip", "gz", "tgz", "bz2", "xz", "7z", "rar", "md5", "sha1", "sha256", "db", "sqlite", "lnk", "url", "ini",
    "part", "crdownload", "tmp", "bak", "dvc", "mp4", "avi", "mov", "mkv", "webm", "mp3", "wav",
}  # fmt: skip

HIDDEN, SYSTEM = "hidden files and folders", "system files and folders"
DANGLING, LOOPS = "links that lead nowhere", "links to a folder above them, or to one that is listed already"
TWICE, SPECIAL = "links to files that are listed already", "pipes, sockets and devices"
BESIDE = "files and folders beside the classes"
BESIDE_SPLITS = "files of a test split, which --keep-test keeps"


def passed_over_as(name: str, is_folder: bool) -> str | None:
    """The kind as which a name is passed over; None: it is a folder of images, or may be an image."""
    small = name.lower()
    if small in (SYSTEM_FOLDERS if is_folder else SYSTEM_FILES):
        return SYSTEM
    if is_hidden(name):
        return HIDDEN
    suffix = small.rpartition(".")[2] if "." in small else ""
    return f"files named .{suffix}" if suffix in NO_IMAGES and not is_folder else None


class Passing:
    """Counts by kind, and the first names of each. Tars are listed by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[str, int] = {}
        self.names: dict[str, list[str]] = {}

    def over(self, what: str, name: str) -> None:
        """One more."""
        self.all_over(what, [name], 1)

    def all_over(self, what: str, names: Iterable[str], count: int) -> None:
        """So many more, of which these are named."""
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + count
            named = self.names.setdefault(what, [])
            named += list(names)[: NAMED - len(named)]

    def add(self, others: Iterable[PassedOver]) -> None:
        """Add the entries that another listing passed over."""
        for other in others:
            self.all_over(other.what, other.names, other.count)

    def told(self) -> tuple[PassedOver, ...]:
        """An entry for each kind, the most frequent first."""
        kinds = sorted(self.counts, key=lambda what: (-self.counts[what], what))
        return tuple(PassedOver(what=w, count=self.counts[w], names=tuple(sorted(self.names[w]))) for w in kinds)


def text_of(passed_over: Iterable[PassedOver]) -> str:
    """For the end of a sentence: what was passed over, if anything."""
    kinds = [f"{p.count} {p.what} ({p.names[0]}{', ...' if p.count > 1 else ''})" for p in passed_over]
    return f"; passed over: {', '.join(kinds)}" if kinds else ""
