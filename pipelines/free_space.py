"""Room on the disk of the shards: looked at before the work, and told with path and amount when it is used up."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.storage import Folder

FULL = {errno.ENOSPC, errno.EDQUOT}


def free(out: Folder) -> int | None:
    """Bytes that can be written where a local folder is or will be; None for other file systems."""
    if not out.is_local:
        return None
    path = out.path()
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def amount(size: int) -> str:
    """Bytes for people, e.g. 1.5 GB."""
    for unit, step in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= step:
            return f"{size / step:.1f} {unit}"
    return f"{size / 1000:.1f} kB"


def refuse_too_little(out: Folder, needed: int) -> None:
    """ValueError: the shards that are to be written, about as large as their images, cannot fit."""
    there = free(out)
    if there is not None and there < needed:
        raise ValueError(
            f"out {out.shown} needs about {amount(needed)} for the shards that are left, "
            f"{amount(there)} are free on its disk"
        )


@contextmanager
def told_when_full(out: Folder, file: str, size: int) -> Iterator[None]:
    """ValueError with path and amount instead of OSError where the disk, or a quota, has no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise full(error, out, file, size) from None


def full(error: OSError, out: Folder, file: str, size: int) -> ValueError:
    """The sentence: which file did not fit where, how large it is, and what is free."""
    there = free(out)
    left = "" if there is None else f", {amount(there)} are free"
    why = "its disk is full" if error.errno == errno.ENOSPC else "its quota is used up"
    large = f" of about {amount(size)}" if size else ""
    return ValueError(
        f"out {out.shown} cannot take {file}{large}: {why}{left}; "
        "the same command goes on from the shards that are finished"
    )
