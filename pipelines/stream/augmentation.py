"""Encoded images -> the batch that the network sees, by the recipe: a pure function of (bytes, seed, epoch, id).

The same pixels come out in a Ray Data task and in a thread of the training process, whatever their number.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.shards.row_groups import Split, UnreadableShard
from resnet.images.checks import image_limits
from resnet.images.crops import evaluation_crops, pca_color, training_crops

if TYPE_CHECKING:
    from resnet.images.jpeg_header import Data
    from resnet.recipes.recipe_settings import Images

CHUNK = 8  # images that a thread decodes at a time: threads end a batch together


class Batch(NamedTuple):
    """images: (N, S, S, 3) uint8; labels: (N,) int64; ids: (N,) places in the split; shift: (N, 3) float32 or None.

    replaced: images of the batch whose bytes could not be decoded, and that another image or black stands for.
    seconds: of threads, that decoding took; ready: decoded batches that waited with this one, where that is known.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    shift: np.ndarray | None = None
    replaced: int = 0
    seconds: float = 0.0
    ready: int | None = None


class BegunBatch(NamedTuple):
    """A batch that threads decode. parts: of each some images, those replaced and the seconds; done by calling it."""

    batch: Batch
    parts: list[Future[tuple[int, float]]]

    def is_ready(self) -> bool:
        """True if nobody would wait for it."""
        return all(part.done() for part in self.parts)

    def __call__(self) -> Batch:
        """Wait for it."""
        replaced, seconds = zip(*(part.result() for part in self.parts), strict=True)
        return self.batch._replace(replaced=sum(replaced), seconds=sum(seconds))


class Encoded(NamedTuple):
    """Rows of a batch as the shards have them. labels: (N,) int64; ids: (N,) places in the split.

    images: views of the object store, decoded where they lie. Arrow's own scalars would be copies.
    """

    images: list[memoryview]
    labels: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class EpochAugmentation:
    """Augmentation of the images of one training epoch. seed: the run's."""

    split: Split
    policy: Images
    seed: int
    epoch: int

    def start(self, rows: Encoded, pool: Executor, out: np.ndarray | None = None) -> BegunBatch:
        """Decode a batch in the threads of a pool; calling what is returned waits for it. out: where the pixels go."""
        size, count = self.policy.size, len(rows.images)
        pixels = np.empty((count, size, size, 3), np.uint8) if out is None else out[:count]
        labels = rows.labels.copy()
        shift = np.empty((count, 3), np.float32) if self.policy.color != "none" else None
        batch = Batch(pixels, labels, rows.ids, shift)
        parts = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
        return BegunBatch(batch, [pool.submit(self._timed_part, rows, part, batch) for part in parts])

    def _timed_part(self, rows: Encoded, part: range, batch: Batch) -> tuple[int, float]:
        """Decode some images into a batch; how many were replaced, and the seconds."""
        began = time.perf_counter()
        return self._part(rows, part, batch), time.perf_counter() - began

    def _part(self, rows: Encoded, part: range, batch: Batch) -> int:
        """Decode some images into a batch; how many were replaced."""
        rngs = {i: np.random.default_rng((self.seed, self.epoch, int(rows.ids[i]), 2)) for i in part}
        cuts: dict[int, training_crops.Cut] = {}
        for i, rng in rngs.items():
            with contextlib.suppress(image_limits.CorruptImage):
                cuts[i] = cut(rows.images[i], self.policy, rng)
        drawn = list(cuts)
        unmade = training_crops.make_all(list(cuts.values()), self.policy.size, [batch.images[i] for i in drawn])
        corrupt = [i for i in part if i not in cuts] + [drawn[k] for k in unmade]
        for i in corrupt:
            batch.labels[i] = self._replace(int(rows.ids[i]), rngs[i], batch.images[i])
        if batch.shift is not None and self.policy.color != "none":
            for i, rng in rngs.items():
                batch.shift[i] = pca_color.pca_shift(rng, color=self.policy.color)
        if self.policy.turns:
            for i, rng in rngs.items():
                batch.images[i] = np.rot90(batch.images[i], int(rng.integers(4)))
        return len(corrupt)

    def _replace(self, place: int, rng: np.random.Generator, out: np.ndarray) -> int:
        """Show the next image of the same row group that can be decoded; its label.

        Which one is a function of the shards alone, so that every run and every rank replaces alike.
        """
        starts = self.split.starts()
        group = int(np.searchsorted(starts, place, side="right")) - 1
        rows, row = self.split.read(group), place - int(starts[group])
        count = len(rows["image"])
        for other in ((row + step) % count for step in range(1, count)):
            with contextlib.suppress(image_limits.CorruptImage):
                augment(rows["image"][other], self.policy, rng, out)
                return int(rows["label"][other])
        raise UnreadableShard(f"a row group of {count} rows has no image that can be decoded")


def shortage(kept: int | None, policy: Images) -> str | None:
    """A note where a recipe scales images up that preparation has scaled down. kept: shorter side in the shards."""
    jitter = policy.shorter_side[1] if policy.policy == "scale-jitter" and policy.shorter_side else 0
    needed = max(policy.scaled(jitter), policy.scaled(policy.eval_shorter_side or 0))
    if kept is None or needed <= kept:
        return None
    return (
        f"note: the recipe scales images to shorter sides of up to {needed} pixels and the shards keep {kept}: what is "
        f"larger is blurred. `jobs/write_shards.py --shorter-side {needed}`, or without it, keeps what is needed"
    )


def augment(data: Data, policy: Images, rng: np.random.Generator, out: np.ndarray | None = None) -> np.ndarray:
    """Bytes of an image -> (size, size, 3) uint8, by the recipe's training policy. A pure function of (bytes, rng)."""
    return training_crops.make(cut(data, policy, rng), policy.size, out=out)


def cut(data: Data, policy: Images, rng: np.random.Generator) -> training_crops.Cut:
    """The crop that `augment` makes, drawn."""
    if policy.policy == "scale-jitter":
        assert policy.shorter_side is not None
        low, high = (policy.scaled(side) for side in policy.shorter_side)
        return training_crops.cut_jittered(data, rng, policy.size, (low, high), policy.flip)
    assert policy.area is not None
    return training_crops.cut_resized(data, rng, policy.area, flip=policy.flip)


def center_or_black(data: bytes, policy: Images) -> np.ndarray:
    """`center`; black where the image cannot be decoded, as in every test."""
    try:
        return center(data, policy)
    except image_limits.CorruptImage:
        return np.zeros((policy.size, policy.size, 3), np.uint8)


def center(data: bytes, policy: Images) -> np.ndarray:
    """Bytes of an image -> (size, size, 3) uint8: shorter side resized, centre cropped."""
    return evaluation_crops.center_crop(data, policy.size, policy.eval_side, interpolation=policy.eval_interpolation)
