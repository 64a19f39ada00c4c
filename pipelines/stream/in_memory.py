"""Sets that fit into memory: decoded once by Ray tasks, indexed from the object store, augmented in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipelines.shards.row_groups import Split
from pipelines.stream.augmentation import Batch
from pipelines.stream.example_order import Order, evaluation_slice
from resnet.images.crops.evaluation_crops import center_crop
from resnet.images.crops.padded_crops import draw_pad_crop, pad_crop_flip

if TYPE_CHECKING:
    from resnet.recipes.recipe_settings import Images


SMALL = 2**22  # pixels (4,096 images of 32 x 32) that are decoded in place: half a second
TASKS = 8  # among which a larger set is divided


class Resident(NamedTuple):
    """A decoded split. images: (N, S, S, 3) uint8; labels: (N,) int64, both in the order of the manifest."""

    images: np.ndarray
    labels: np.ndarray


class Draws(NamedTuple):
    """A batch that is not made yet. ids: (N,) places in the split; offsets: (N, 2) top and left of each crop in the
    padded image; flips: (N,) bool; turns: (N,) quarter turns; replaced: as Batch has it, none of a decoded set."""

    ids: np.ndarray
    offsets: np.ndarray
    flips: np.ndarray
    turns: np.ndarray
    replaced: int = 0

    def table(self) -> np.ndarray:
        """(N, 5) int64: place, top, left, mirrored, quarter turns."""
        return np.column_stack([self.ids, self.offsets, self.flips, self.turns]).astype(np.int64)


def load_resident(split: Split, size: int, limit: int) -> Resident:
    """Decode a split once into size x size images. limit: bytes that the result may have.

    By Ray tasks, unless the split is so small that their processes would import for longer than they decode. Not by Ray
    Data: of a set that is read once it keeps two actors, which take the CPUs' time from the training until it ends.
    """
    wanted = split.examples * size * size * 3
    if wanted > limit:
        raise ValueError(
            f"policy pad-crop keeps the decoded set in memory: data.memory_limit must be at least "
            f"{-(-wanted // 2**20)} MiB for {split.examples} {split.name} images of {size} pixels, "
            f"got {limit // 2**20}; larger sets need policy scale-jitter or random-resized-crop"
        )
    small, groups = split.examples * size * size <= SMALL, np.arange(len(split.rows))
    parts = [_decode_groups(split, size, groups)] if small else _decode_by_tasks(split, size, groups)
    return Resident(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _decode_by_tasks(split: Split, size: int, groups: np.ndarray) -> list[Resident]:
    import ray
    from ray.exceptions import RayTaskError

    decode = ray.remote(num_cpus=0.5)(_decode_groups)
    parts = [decode.remote(split, size, some) for some in np.array_split(groups, min(TASKS, len(groups)))]
    try:
        return ray.get(parts)
    except RayTaskError as error:
        raise error.cause from None  # a damaged shard in its own words, without the task's traceback


def _decode_groups(split: Split, size: int, groups: np.ndarray) -> Resident:
    """Row groups one after the other, decoded."""
    count = sum(split.rows[group] for group in groups)
    decoded = Resident(np.empty((count, size, size, 3), np.uint8), np.empty(count, np.int64))
    at = 0
    for group in groups.tolist():
        rows = split.read(group)
        for data, label in zip(rows["image"], rows["label"], strict=True):
            decoded.images[at], decoded.labels[at] = center_crop(data, size, size), label
            at += 1
    return decoded


def resident_draws(
    order: Order, policy: Images, epoch: int, first_step: int, rank: int, world_size: int
) -> Iterator[Draws]:
    """A rank's training batches of an epoch from `first_step` on, as drawn: pad, random crop, mirror (section 4.2)."""
    assert policy.pad is not None  # the recipe's validator: policy pad-crop
    starts = np.cumsum([0, *order.rows])
    # One draw for the whole epoch: an example's crop depends on (seed, epoch, example) alone, whoever trains on it.
    offsets, flips = draw_pad_crop(np.random.default_rng((order.seed, epoch, 1)), order.examples, policy.pad)
    if not policy.flip:
        flips = np.zeros_like(flips)
    turns = np.zeros(order.examples, np.int64)
    if policy.turns:
        turns = np.random.default_rng((order.seed, epoch, 4)).integers(0, 4, order.examples)
    for window, skip in order.remaining(epoch, first_step):
        for group, row in zip(*order.share(epoch, window, rank, world_size, skip), strict=True):
            index = starts[group] + row
            yield Draws(index, offsets[index], flips[index], turns[index])


def resident_batches(
    resident: Resident,
    order: Order,
    policy: Images,
    epoch: int,
    first_step: int,
    rank: int,
    world_size: int,
    border: np.ndarray | None = None,
) -> Iterator[Batch]:
    """A rank's training batches of an epoch from `first_step` on, made here.

    border: (3,) uint8, colour of the padding; black without one.
    """
    if policy.border != "black" and border is None:
        raise ValueError(f"border {policy.border} needs a colour, got none")
    assert policy.pad is not None  # the recipe's validator: policy pad-crop
    for ids, offsets, flips, turns, _ in resident_draws(order, policy, epoch, first_step, rank, world_size):
        crops = pad_crop_flip(resident.images[ids], offsets, flips, policy.pad, border)
        for turn in set(turns.tolist()) - {0}:
            mine = turns == turn
            crops[mine] = np.rot90(crops[mine], turn, axes=(1, 2))
        yield Batch(crops, resident.labels[ids], ids)


def resident_evaluation(resident: Resident, batch_size: int, rank: int, world_size: int) -> Iterator[Batch]:
    """A rank's part of a split, each example once over all ranks, in batches of at most batch_size."""
    part = evaluation_slice(len(resident.labels), rank, world_size)
    for start in range(part.start, part.stop, batch_size):
        index = np.arange(start, min(start + batch_size, part.stop))
        yield Batch(resident.images[index], resident.labels[index], index)
