"""The control groups that a process is in, with the files by which the kernel tells their limits (Linux)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc/self")


def control_groups(controller: str, proc: Path = PROC) -> Iterator[Path]:
    """Folders of this process's groups for a controller such as cpu, of version 1 and 2, each with those above it.

    proc: a folder with the files `cgroup` and `mountinfo`, as the kernel writes them. Other systems have none.
    """
    paths: dict[str, str] = {}  # by controller; of version 2 by ""
    for line in lines_of(proc / "cgroup"):
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path)
    for line in lines_of(proc / "mountinfo"):
        mount, _, system = line.partition(" - ")
        kind, _, options = system.split(" ", 2)
        if kind == "cgroup2":
            path = paths.get("")
        elif kind == "cgroup" and controller in options.split(","):
            path = paths.get(controller)
        else:
            continue
        if path is not None:
            root, top = (_unescaped(word) for word in mount.split(" ")[3:5])
            yield from _upwards(path, root, Path(top))


def lines_of(file: Path) -> list[str]:
    """Lines of a file of the kernel; none where it cannot be read."""
    try:
        return file.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _upwards(path: str, root: str, top: Path) -> Iterator[Path]:
    """The group at `path` and those above it, in a mount at `top` that shows what lies below `root`.

    A container may see the whole host's path beside a mount of its own group alone, or `/..` above its own.
    """
    inside = os.path.relpath(path, root)
    below = [] if inside.startswith("..") or inside == "." else inside.split("/")
    for depth in range(len(below), -1, -1):
        yield top.joinpath(*below[:depth])


def _unescaped(word: str) -> str:
    """A path of mountinfo, where a space is written as \\040."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), word)
