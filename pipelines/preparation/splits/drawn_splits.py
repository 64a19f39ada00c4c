"""val and test drawn from train: by class, by the hash of each key, so that the order of listing does not matter.

val is a share of train, or one fold of a cross-validation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from pipelines.preparation.listing import Listing, in_order, some
from pipelines.preparation.splits.folds import folds_of_groups, folds_of_images, require_classes_on_both_sides
from pipelines.preparation.splits.groups import GroupBy, groups_of
from pipelines.shards.manifest import SplitName, Splitting
from resnet.frozen import FrozenSettings

Share = Annotated[float | None, Field(gt=0, lt=1)]


class Drawing(FrozenSettings):
    """Options of a source's splits: those drawn from train, and those that may be missing.

    fold: which of the folds is val, 1 to folds; the others are train.
    """

    val_share: Share = None
    test_share: Share = None
    folds: Annotated[int | None, Field(ge=2)] = None
    fold: Annotated[int | None, Field(ge=1)] = None
    seed: int = 0
    group: GroupBy = GroupBy()
    keep_test: bool = False
    allow_empty: bool = False
    allow_missing: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.val_share or 0) + (self.test_share or 0) >= 1:
            raise ValueError(
                f"val_share and test_share must leave images to train, got {self.val_share} and {self.test_share}"
            )
        if self.folds is not None and self.val_share is not None:
            raise ValueError(f"val_share must be left out with folds, each of which is val once, got {self.val_share}")
        if self.fold is not None and self.fold > (self.folds or 0):
            raise ValueError(f"fold must be one of the folds, 1 to {self.folds}, got {self.fold}")
        if self.group.given and not self.draws:
            raise ValueError("a group has an effect only with val_share, test_share or folds, none is given")
        if self.seed and not self.draws:
            raise ValueError(
                f"split_seed has an effect only with val_share, test_share or folds, got {self.seed} alone"
            )
        return self

    @property
    def draws(self) -> bool:
        """True if a split is drawn."""
        return any(given is not None for given in (self.val_share, self.test_share, self.folds))

    @property
    def record(self) -> Splitting | None:
        """For the manifest; None where the source's own splits are taken."""
        if not self.draws:
            return None
        return Splitting(
            val_share=self.val_share,
            test_share=self.test_share,
            folds=self.folds,
            fold=self.fold,
            seed=self.seed,
            group=self.group.description,
        )


def draw_splits(listing: Listing, drawing: Drawing) -> Listing:
    """The listing with val, and test if asked for. ValueError: there is no val and no share, or both, or no way."""
    there, uri = listing.present, listing.source.uri
    if not listing.images:
        return listing  # Listing.checked says so
    if "val" not in there and drawing.val_share is None and drawing.folds is None:
        raise ValueError(
            f"source.path {uri} holds {listing.images} images of {len(listing.classes)} classes and no split val; "
            "--val-share 0.2 draws one"
        )
    shares: dict[SplitName, float] = {}
    wanted: tuple[tuple[SplitName, float | None], ...] = (("test", drawing.test_share), ("val", drawing.val_share))
    for split, share in wanted:
        if share is not None and split in there:
            raise ValueError(f"{split}_share must be left out where there is a split {split}, {uri} has one")
        if share is not None:
            shares[split] = share
    if drawing.folds is not None and "val" in there:
        raise ValueError(f"folds must be left out where there is a split val, {uri} has one")
    return _drawn(listing, shares, drawing) if shares or drawing.folds is not None else listing


def _drawn(listing: Listing, shares: dict[SplitName, float], drawing: Drawing) -> Listing:
    train = listing.splits["train"]
    labels = train["label"].to_numpy()
    option = "val_share" if drawing.folds is None else "folds"
    if listing.targets is None and len(set(labels.tolist())) < 2:
        name = some([c.wnid for c in listing.classes]) or "none"
        raise ValueError(f"images must be of two classes at least for {option}, all {len(labels)} are of {name}")
    groups = None
    if drawing.group.given:
        groups = groups_of(drawing.group, train["key"].to_pylist(), train["path"].to_pylist())
        side = _by_group(labels, groups, shares, drawing.seed)
    else:
        side = _by_image(labels, train["key"], shares, drawing.seed)
    for i, (split, share) in enumerate(shares.items(), start=1):
        if not (side == i).any():
            raise ValueError(
                f"{split}_share {share} draws nothing: of each class an image or group stays in train, none has more"
            )
    drawn: list[SplitName] = [*shares]
    if drawing.folds is not None:
        rest = np.flatnonzero(side == 0)
        drawn.append("val")
        side[rest[_folds(listing, rest, groups, drawing) == (drawing.fold or 1) - 1]] = len(drawn)
    splits: dict[SplitName, pa.Table] = {
        **listing.splits,
        "train": in_order([train.filter(pa.array(side == 0))]),
        **{split: in_order([train.filter(pa.array(side == i))]) for i, split in enumerate(drawn, start=1)},
    }
    return replace(listing, splits=splits, notes=(*listing.notes, _note(side, drawn, drawing)))


def _folds(listing: Listing, rest: np.ndarray, groups: Sequence[str] | None, drawing: Drawing) -> np.ndarray:
    """The fold of each image of train that is left, 0 and up. ValueError: a fold would be empty, or a class in one."""
    assert drawing.folds is not None
    train, names = listing.splits["train"].take(pa.array(rest)), [c.wnid for c in listing.classes]
    labels, seed = train["label"].to_numpy(), drawing.seed
    whole, count = ("image", len(rest)) if groups is None else ("group", len({groups[i] for i in rest}))
    if count < drawing.folds:
        raise ValueError(f"folds must be at most the {count} {whole}s that there are, got {drawing.folds}")
    if groups is None:
        found = folds_of_images(labels, _places(train["key"], seed), drawing.folds)
    else:
        left: list[str] = np.asarray(groups, dtype=object)[rest].tolist()
        found = folds_of_groups(labels, left, lambda name: _place(name, seed), drawing.folds)
    if listing.targets is None:
        require_classes_on_both_sides(labels, found, names, whole)
    return found


def _note(side: np.ndarray, drawn: Sequence[SplitName], drawing: Drawing) -> str:
    """The splits that were drawn, in a sentence."""
    counts = ", ".join(f"{int((side == i).sum())} {s}" for i, s in enumerate(["train", *drawn]))
    what = f"by {drawing.group.description}, never on two sides" if drawing.group.given else "by class"
    fold = "" if drawing.folds is None else f", fold {drawing.fold} of {drawing.folds}"
    return f"drawn {what}, with seed {drawing.seed}{fold}: {counts}"


def _place(text: str, seed: int) -> bytes:
    """Position of a key or a group in the drawing. A hash, for numpy may change its generators."""
    return hashlib.sha256(f"{seed}/{text}".encode()).digest()


def _places(keys: pa.ChunkedArray, seed: int) -> np.ndarray:
    """The first 8 bytes of each key's place, (N,) uint64."""
    texts = (
        text for chunk in pa.table([keys], ["key"]).to_batches(max_chunksize=2**16) for text in chunk[0].to_pylist()
    )
    return np.fromiter((int.from_bytes(_place(text, seed)[:8], "big") for text in texts), np.uint64, len(keys))


def _by_image(labels: np.ndarray, keys: pa.ChunkedArray, shares: dict[SplitName, float], seed: int) -> np.ndarray:
    """Side of each image: 0 train, 1 the first share, ...; of each class its share, one stays in train at least."""
    order = np.lexsort((_places(keys, seed), labels))
    side = np.zeros(len(labels), np.int8)
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for mine in np.split(order, starts[1:]):
        begin = 0
        for i, share in enumerate(shares.values(), start=1):
            count = min(max(1, round(share * len(mine))), len(mine) - 1 - begin)
            side[mine[begin : begin + count]] = i
            begin += max(0, count)
    return side


def _by_group(labels: np.ndarray, groups: Sequence[str], shares: dict[SplitName, float], seed: int) -> np.ndarray:
    """Side of each image so that groups stay whole: a group goes where it brings the classes nearest to their share.

    Groups come by falling size and then by hash. The last group of a class stays in train.
    """
    if not shares:
        return np.zeros(len(labels), np.int8)
    names, index = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), np.int64)
    np.add.at(counts, (index, labels), 1)
    total, in_train = counts.sum(0), counts.sum(0)
    sizes = counts.sum(1)
    wanted = [share * total for share in shares.values()]
    got = [np.zeros_like(total) for _ in shares]
    side = np.zeros(len(names), np.int8)
    for g in sorted(range(len(names)), key=lambda g: (-sizes[g], _place(str(names[g]), seed))):
        gain = [_gain(counts[g], have, want) for have, want in zip(got, wanted, strict=True)]
        best = int(np.argmax(gain))
        held = counts[g] > 0
        if gain[best] > 0 and (in_train - counts[g])[held].min() > 0:
            side[g], got[best], in_train = best + 1, got[best] + counts[g], in_train - counts[g]
    return side[index]


def _gain(group: np.ndarray, have: np.ndarray, want: Any) -> float:
    """By how much a group brings a split nearer to what is wanted of each class."""
    return float((np.abs(want - have) - np.abs(want - have - group)).sum())
