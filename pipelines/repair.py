"""Shards of a finished folder that are missing, cut or changed: found, and written again alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines import ledger
from pipelines.listing import some
from pipelines.manifest import MANIFEST, Manifest, Shard
from pipelines.meter import meter
from pipelines.shard_file import Finished, problem_of
from pipelines.storage import READERS, Folder

READ_ALL = 4 * 2**30  # bytes of shards on a disk that are always read and compared: some seconds


def damaged(out: Folder, manifest: Manifest, read_all: bool) -> list[str]:
    """Files of shards that are not what the manifest says.

    By their sizes; and by their content, all of them with `read_all` or where they are few on a disk, else those on a
    disk that are newer than the manifest.
    """
    sizes = {entry.name: entry.size for entry in out.entries()}
    lost = [shard.file for shard in manifest.shards if sizes.get(shard.file) != shard.bytes]
    suspects = [s for s in manifest.shards if s.file not in lost and (read_all or _is_suspect(out, manifest, s))]
    with (
        ThreadPoolExecutor(READERS[out.is_local]) as pool,
        meter("compared", sum(s.examples for s in suspects)) as shown,
    ):
        for shard, problem in zip(
            suspects, pool.map(lambda s: problem_of(out, s, len(manifest.classes)), suspects), strict=True
        ):
            lost += [shard.file] if problem else []
            shown.add(shard.examples)
    return lost


def _is_suspect(out: Folder, manifest: Manifest, shard: Shard) -> bool:
    if not out.is_local:
        return False
    few = sum(s.bytes for s in manifest.shards) <= READ_ALL
    return few or os.path.getmtime(out.path(shard.file)) > os.path.getmtime(out.path(MANIFEST))


def kept(manifest: Manifest, without: Sequence[str]) -> dict[str, Finished]:
    """The shards that stay, as a ledger has them."""
    return {shard.file: Finished(shard=shard) for shard in manifest.shards if shard.file not in without}


def mended(out: Folder, manifest: Manifest, done: Mapping[str, Finished], again: Sequence[str]) -> Manifest:
    """The manifest after some shards were written again. ValueError: their images are others than they were."""
    new = tuple(done[shard.file].shard for shard in manifest.shards)
    pairs = list(zip(manifest.shards, new, strict=True))
    other = [n.file for was, n in pairs if (was.examples, was.row_groups) != (n.examples, n.row_groups)]
    if other:
        raise ValueError(
            f"out {out.uri} cannot be repaired: {some(other)} has other images now than when it was written; "
            "delete the folder and write it again"
        )
    if all(was.sha256 == n.sha256 for was, n in pairs):
        ledger.clear(out)
        return manifest
    # Another version of Arrow, or of the encoder, writes the same rows in other bytes.
    return ledger.written(out, manifest.model_copy(update={"shards": new}))
