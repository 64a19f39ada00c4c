"""Images with the same bytes: counted inside splits, between them and between classes, while shards are written."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from pipelines.preparation.listing import Listing
from pipelines.preparation.shard_plan import ShardPlan
from pipelines.shards.manifest import ALL_SPLITS, Duplicates, Finished, SplitName

# 8 bytes of the sha256: two of 14 million different images share them once in 180,000 such sets (n^2 / 2^65).
BYTES = 8
NO_IMAGE = bytes(BYTES)
NAMED = 20


def image_digest(data: bytes) -> bytes:
    """Digest by which an image is told from others."""
    return hashlib.sha256(data).digest()[:BYTES]


def digests_as_text(digests: bytes | bytearray) -> str:
    """The digests of a shard's rows, in the order of its plan, for the ledger."""
    return base64.b64encode(digests).decode()


def count_duplicates(listing: Listing, plans: Sequence[ShardPlan], done: Mapping[str, Finished]) -> Duplicates | None:
    """Duplicates in all that was written; None where an older version began, which kept no digests."""
    if any(not done[p.file].digests for p in plans if len(p.rows)):
        return None
    digests = np.frombuffer(b"".join(base64.b64decode(done[p.file].digests) for p in plans), np.uint64)
    splits = np.repeat([ALL_SPLITS.index(p.split) for p in plans], [len(p.rows) for p in plans])
    by_split = {split: table["label"].to_numpy() for split, table in listing.splits.items()}
    labels = np.concatenate([by_split[p.split][p.rows] for p in plans])
    there = np.flatnonzero(digests)
    _, group = np.unique(digests[there], return_inverse=True)
    # By group, then split: the first of a group is in train where any is.
    order = there[np.lexsort((splits[there], group))]
    group = np.sort(group)
    first = np.flatnonzero(np.diff(group, prepend=-1))
    twin = order[first][group]  # of each image the first with its bytes
    again = order != twin
    in_train = again & (splits[twin] == 0) & (splits[order] > 0)
    other_class = labels[order] != labels[twin]
    named = np.flatnonzero(again)[np.argsort(~(in_train | other_class)[again], kind="stable")][:NAMED]
    keys = _Keys(listing, plans)
    return Duplicates(
        within=_by_split(_within(splits[order], group)),
        in_train=_by_split(np.bincount(splits[order][in_train], minlength=len(ALL_SPLITS))),
        other_class=int(other_class.sum()),
        pairs=tuple((keys.of(int(order[i])), keys.of(int(twin[i]))) for i in named),
    )


def _within(splits: np.ndarray, group: np.ndarray) -> np.ndarray:
    """By split, the images whose bytes an image before them in the same split has. Both sorted by group, then split."""
    same = (np.diff(group, prepend=-1) == 0) & (np.diff(splits, prepend=-1) == 0)
    return np.bincount(splits[same], minlength=len(ALL_SPLITS))


def _by_split(counts: np.ndarray) -> dict[SplitName, int]:
    return {split: int(n) for split, n in zip(ALL_SPLITS, counts, strict=True) if n}


class _Keys:
    """Keys by the number of a row in all plans together."""

    def __init__(self, listing: Listing, plans: Sequence[ShardPlan]) -> None:
        self.listing, self.plans = listing, plans
        self.starts = np.cumsum([0, *(len(p.rows) for p in plans)])

    def of(self, number: int) -> str:
        shard = int(np.searchsorted(self.starts, number, side="right")) - 1
        plan = self.plans[shard]
        return self.listing.splits[plan.split]["key"][int(plan.rows[number - self.starts[shard]])].as_py()
