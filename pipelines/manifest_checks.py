"""What a manifest must be true to, whoever edited it: names of shards, each once, counts that agree."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

from pipelines.storage import Folder

if TYPE_CHECKING:
    from pipelines.manifest import Manifest

NUMBERED = re.compile(r"(?P<split>train|val|test)-(?P<number>\d{5,})-of-(?P<total>\d{5,})\.parquet")


def refuse_edited(manifest: Manifest, where: str) -> None:
    """ValueError: the manifest cannot be as it was written. where: its path, for the sentence."""
    for shard in manifest.shards:
        if os.path.isabs(shard.file) or ":" in shard.file:
            raise ValueError(f"{where}: shards must be files of its folder, {shard.file!r} is an absolute path")
        if not shard.file or {"/", "\\", "\0"} & set(shard.file) or shard.file in (".", ".."):
            raise ValueError(f"{where}: shards must be files of its folder, {shard.file!r} leads out of it")
        if sum(shard.row_groups) != shard.examples or min(shard.row_groups, default=0) < 0:
            raise ValueError(
                f"{where}: examples of {shard.file} must be the sum of its row groups, "
                f"{sum(shard.row_groups)}, got {shard.examples}"
            )
    twice = [file for file, count in Counter(shard.file for shard in manifest.shards).items() if count > 1]
    if twice:
        raise ValueError(f"{where}: each shard must be listed once, {twice[0]} is listed twice")
    same = [sha for sha, n in Counter(s.sha256 for s in manifest.shards if s.examples).items() if n > 1]
    if same:
        files = [shard.file for shard in manifest.shards if shard.sha256 == same[0]]
        raise ValueError(f"{where}: each shard must be listed once, {files[0]} and {files[1]} have the same content")
    _refuse_missing(manifest, where)
    wrong = next((i for i, c in enumerate(manifest.classes) if c.id != i), None)
    if wrong is not None:
        raise ValueError(
            f"{where}: ids of classes must be 0, 1, ... in order, class {wrong} has {manifest.classes[wrong].id}"
        )


def _refuse_missing(manifest: Manifest, where: str) -> None:
    """ValueError: the names of the shards say that one is missing, or that one is of another split."""
    listed: Counter[tuple[str, int]] = Counter()
    for shard in manifest.shards:
        if match := NUMBERED.fullmatch(shard.file):
            if match["split"] != shard.split:
                raise ValueError(f"{where}: split of {shard.file} must be {match['split']}, got {shard.split}")
            listed[match["split"], int(match["total"])] += 1
    for (split, total), count in listed.items():
        if count != total:
            raise ValueError(f"{where}: all {total} shards of {split} must be listed, it lists {count}")


def refuse_links(manifest: Manifest, folder: Folder, where: str) -> None:
    """ValueError: a shard is a symbolic link that leads out of its folder."""
    if not folder.is_local:
        return
    root = os.path.realpath(folder.path())
    for shard in manifest.shards:
        path = folder.path(shard.file)
        if os.path.islink(path) and os.path.dirname(os.path.realpath(path)) != root:
            raise ValueError(
                f"{where}: shards must be files of its folder, {shard.file} is a link that leads out of it"
            )
