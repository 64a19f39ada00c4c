"""Which image goes into which shard: a pure function of the listing, the sizes and the seed."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.listing import Listing
from pipelines.manifest import ALL_SPLITS, Split

SHARD_BYTES = 192 * 2**20
LEAST_SHARDS = 8  # of a split, where it has the row groups: so many tasks can share the work
ROW_GROUP, SMALL_ROW_GROUP = 128, 512
SMALL_IMAGE, MANY_IMAGES = 8192, 20_000


class ShardPlan(NamedTuple):
    """A shard to be written. rows: of the split's listing, in the order in which they are written."""

    file: str
    split: Split
    rows: np.ndarray


def default_row_group_size(listing: Listing) -> int:
    """128 images; 512 where images are small (CIFAR: 2 KB) and many, so that a read is worth its cost."""
    small = listing.bytes < SMALL_IMAGE * listing.images
    return SMALL_ROW_GROUP if small and listing.images >= MANY_IMAGES else ROW_GROUP


def plan(listing: Listing, row_group_size: int, shard_bytes: int, seed: int) -> list[ShardPlan]:
    """Each split shuffled once and cut into shards of whole row groups, about `shard_bytes` of the source each.

    val is shuffled like train: any part of it is then an unbiased sample, and evaluation does not mind the order.
    """
    return [
        p
        for i, split in enumerate(ALL_SPLITS)
        if split in listing.splits
        for p in _plan_split(listing, split, row_group_size, shard_bytes, (seed, i))
    ]


def _plan_split(
    listing: Listing, split: Split, row_group_size: int, shard_bytes: int, seed: tuple[int, int]
) -> list[ShardPlan]:
    table, rng = listing.splits[split], np.random.default_rng(seed)
    order = shuffled(table, rng)
    groups = -(-len(order) // row_group_size)
    shards = max(-(-int(table["size"].to_numpy().sum()) // shard_bytes), min(groups, LEAST_SHARDS))
    shards = min(shards, groups)
    ends = [row_group_size * (groups * i // shards) for i in range(1, shards)]
    parts = np.split(order, ends)
    if "unit" in table.column_names:
        parts = [rng.permutation(part) for part in parts]
    return [ShardPlan(f"{split}-{i:05d}-of-{shards:05d}.parquet", split, part) for i, part in enumerate(parts)]


def shuffled(table: pa.Table, rng: np.random.Generator) -> np.ndarray:
    """Rows of a listing in random order. Rows of one unit stay together: they can only be read together."""
    if "unit" not in table.column_names:
        return rng.permutation(table.num_rows)
    _, unit = np.unique(table["unit"].to_numpy(), return_inverse=True)
    place = rng.permutation(int(unit.max(initial=-1)) + 1)
    return np.argsort(place[unit], kind="stable")


def fingerprint(listing: Listing, plans: list[ShardPlan]) -> str:
    """sha256 over the images (key, label, place, size) and over the order and the shards in which they are written.

    The order is in it because numpy may draw another permutation in another version.
    """
    digest = hashlib.sha256()
    for split in listing.present:
        for batch in listing.splits[split].to_batches(max_chunksize=2**16):
            digest.update(json.dumps([split, batch.to_pydict()], sort_keys=True).encode())
    for shard in plans:
        digest.update(shard.file.encode() + shard.rows.astype("<i8").tobytes())
    return digest.hexdigest()
