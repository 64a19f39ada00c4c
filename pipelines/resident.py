"""Sets that fit into memory: decoded once by Ray Data, indexed from the object store, augmented in batches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipelines.order import Order, evaluation_slice
from pipelines.pictures import Batch
from pipelines.split import Split
from resnet import images

if TYPE_CHECKING:
    from resnet.recipe import Images


SMALL = 2**22  # pixels (4,096 images of 32 x 32) that are decoded in place: half a second


def ordered() -> None:
    """Set what the order depends on in this process: Ray Data hands blocks on in the order of the items."""
    import ray

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A fresh map process imports for up to a minute on a busy machine; Ray's own 30 minutes would hide a deadlock.
    context.execution_no_progress_timeout_s = 300


class Resident(NamedTuple):
    """A decoded split. images: (N, S, S, 3) uint8; labels: (N,) int64, both in the order of the manifest."""

    images: np.ndarray
    labels: np.ndarray


def load_resident(split: Split, size: int, limit: int) -> Resident:
    """Decode a split once into size x size images. limit: bytes that the result may have.

    By Ray Data tasks, unless the split is so small that their processes would import for longer than they decode.
    """
    wanted = split.examples * size * size * 3
    if wanted > limit:
        raise ValueError(
            f"policy pad-crop keeps the decoded set in memory: data.memory_limit must be at least "
            f"{-(-wanted // 2**20)} MiB for {split.examples} {split.name} images of {size} pixels, "
            f"got {limit // 2**20}; larger sets need policy scale-jitter or random-resized-crop"
        )
    small = split.examples * size * size <= SMALL
    parts = list(
        _decode_groups(split, size, {"group": np.arange(len(split.rows))}) if small else _decode_by_tasks(split, size)
    )
    order = np.argsort(np.concatenate([p["index"] for p in parts]))
    decoded = np.concatenate([p["image"] for p in parts])[order]
    return Resident(decoded, np.concatenate([p["label"] for p in parts])[order])


def _decode_by_tasks(split: Split, size: int) -> Iterator[Any]:
    import ray

    ordered()
    groups = ray.data.from_items([{"group": g} for g in range(len(split.rows))], override_num_blocks=8)
    decode: Any = partial(_decode_groups, split, size)
    blocks = groups.map_batches(decode, batch_size=None, num_cpus=0.25)
    yield from blocks.iter_batches(batch_size=None, prefetch_batches=4)


def _decode_groups(split: Split, size: int, block: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """A Ray Data task: row groups -> (N, size, size, 3) images, their labels and places."""

    starts = split.starts()
    for group in block["group"]:
        rows = split.read(int(group))
        decoded = [images.center_crop(data, size, size) for data in rows["image"]]
        index = starts[group] + np.arange(len(decoded))
        yield {"image": np.stack(decoded), "label": np.asarray(rows["label"], dtype=np.int64), "index": index}


def resident_batches(
    resident: Resident, order: Order, policy: Images, epoch: int, first_step: int, rank: int, world_size: int
) -> Iterator[Batch]:
    """A rank's training batches of an epoch from `first_step` on: pad, random crop, mirror (section 4.2)."""

    assert policy.pad is not None  # the recipe's validator: policy pad-crop
    starts = np.cumsum([0, *order.rows])
    # One draw for the whole epoch: an example's crop depends on (seed, epoch, example) alone, whoever trains on it.
    offsets, flips = images.draw_pad_crop(np.random.default_rng((order.seed, epoch, 1)), order.examples, policy.pad)
    if not policy.flip:
        flips = np.zeros_like(flips)
    for window, skip in order.remaining(epoch, first_step):
        for group, row in zip(*order.share(epoch, window, rank, world_size, skip), strict=True):
            index = starts[group] + row
            crops = images.pad_crop_flip(resident.images[index], offsets[index], flips[index], policy.pad)
            yield Batch(crops, resident.labels[index], index)


def resident_evaluation(resident: Resident, batch_size: int, rank: int, world_size: int) -> Iterator[Batch]:
    """A rank's part of a split, each example once over all ranks, in batches of at most batch_size."""
    part = evaluation_slice(len(resident.labels), rank, world_size)
    for start in range(part.start, part.stop, batch_size):
        index = np.arange(start, min(start + batch_size, part.stop))
        yield Batch(resident.images[index], resident.labels[index], index)
