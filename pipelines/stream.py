"""Shards -> batches of one worker, by Ray Data. Which example comes when is pipelines/order.py's, a pure function.

Two ways, chosen by the recipe's policy. Streamed: each worker runs a Ray Data pipeline of its own over the windows of
an epoch; a task reads a worker's row groups of one window, decodes and augments, and yields its batches in order.
Resident: Ray Data decodes a small set once, the arrays lie in the object store, and a batch is an index into them.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from pipelines.manifest import Manifest, read_manifest
from pipelines.order import Order, evaluation_slice
from pipelines.storage import filesystem
from resnet import images

if TYPE_CHECKING:
    from resnet.recipe import Images

RETRIES = (0.2, 1.0, 5.0)  # seconds before the next try to read a row group
SMALL = 2**22  # pixels (4,096 images of 32 x 32) that are decoded in place: half a second
EVAL_CHUNK = 64  # images that an evaluation task yields at once


class UnreadableShard(ValueError):
    """A shard is gone or damaged, after all retries."""


class Batch(NamedTuple):
    """images: (N, S, S, 3) uint8; labels: (N,) int64; ids: (N,) places in the split; shift: (N, 3) float32 or None.

    replaced: images of the batch whose bytes could not be decoded, and that another image or black stands for.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray
    shift: np.ndarray | None = None
    replaced: int = 0


@dataclass(frozen=True)
class Split:
    """The row groups of one split, in the order of the manifest: what a task needs to read any of them."""

    uri: str
    name: str
    files: tuple[str, ...]
    places: tuple[tuple[int, int], ...]  # (file, row group inside it) of each row group
    rows: tuple[int, ...]
    before: int = 0  # rows of the first row group that belong to another split

    @classmethod
    def of(cls, manifest: Manifest, uri: str, name: str) -> Split:
        """The split called train or val."""
        shards = manifest.of_split(name)  # pyright: ignore[reportArgumentType]
        places = tuple((f, g) for f, shard in enumerate(shards) for g in range(len(shard.row_groups)))
        rows = tuple(rows for shard in shards for rows in shard.row_groups)
        return cls(uri, name, tuple(shard.file for shard in shards), places, rows)

    @property
    def examples(self) -> int:
        """Images of the split."""
        return sum(self.rows)

    def parted(self, last: int) -> tuple[Split, Split]:
        """All but the last images, and the last: preparation has shuffled, so both are random samples."""
        starts, cut = self.starts(), self.examples - last
        group = int(np.searchsorted(starts, cut, side="right")) - 1
        inside = cut - int(starts[group])
        first = replace(self, places=self.places[: group + 1], rows=(*self.rows[:group], inside))
        if inside == 0:
            first = replace(self, places=self.places[:group], rows=self.rows[:group])
        rest = (self.rows[group] - inside, *self.rows[group + 1 :])
        return first, replace(self, name="val", places=self.places[group:], rows=rest, before=inside)

    def starts(self) -> np.ndarray:
        """(row groups + 1,) examples before each row group: the index of its first example."""
        return np.cumsum([0, *self.rows])

    def read(self, group: int, columns: tuple[str, ...] = ("image", "label")) -> dict[str, list[Any]]:
        """One row group as lists, e.g. {"image": [bytes, ...], "label": [int, ...]}."""
        from pyarrow import parquet

        file, number = self.places[group]
        for wait in (*RETRIES, None):
            try:
                system, root = filesystem(self.uri)
                path = f"{root}/{self.files[file]}"
                # Each page carries a checksum: a byte that has changed on the way or on the disk is an OSError.
                with parquet.ParquetFile(path, filesystem=system, page_checksum_verification=True) as shard:
                    table = shard.read_row_group(number, columns=list(columns))
                return table.slice(self.before if group == 0 else 0, self.rows[group]).to_pydict()
            except (OSError, ValueError, IndexError) as error:  # Arrow's own errors are of these kinds
                if wait is None:
                    told = " ".join(str(error).split())
                    raise UnreadableShard(
                        f"shard {self.files[file]} of {self.uri} cannot be read ({told}); "
                        f"`jobs/write_shards.py --out {self.uri} --verify` compares all shards"
                    ) from None
                time.sleep(wait)
        raise AssertionError("unreachable")


def open_split(uri: str, name: str) -> tuple[Manifest, Split]:
    """The manifest at a folder or URI, and one of its splits."""
    manifest = read_manifest(uri)
    return manifest, Split.of(manifest, uri, name)


# --- Resident: sets that fit into memory ------------------------------------------------------------------------------


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

    _ordered()
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


# --- Streamed: sets of any size ---------------------------------------------------------------------------------------


def streamed_batches(
    split: Split, order: Order, policy: Images, epoch: int, first_step: int, rank: int, world_size: int, cpus: float
) -> Iterator[Batch]:
    """A rank's training batches of an epoch from `first_step` on. cpus: what this rank's tasks may hold."""
    items = [{"window": w, "skip": s} for w, s in order.remaining(epoch, first_step)]
    task = partial(_train_window, split, order, policy, epoch, rank, world_size)
    yield from _run(items, task, order.local(rank, world_size), policy.size, cpus)


def _train_window(
    split: Split, order: Order, policy: Images, epoch: int, rank: int, world_size: int, item: dict[str, np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """A Ray Data task: one window of one rank -> its batches, decoded and augmented, in order."""
    starts = split.starts()
    for window, skip in zip(item["window"], item["skip"], strict=True):
        groups, rows = order.share(epoch, int(window), rank, world_size, int(skip))
        data = {int(g): split.read(int(g)) for g in np.unique(groups)}
        for batch_groups, batch_rows in zip(groups, rows, strict=True):
            index = starts[batch_groups] + batch_rows
            chosen = [(data[int(g)], int(r)) for g, r in zip(batch_groups, batch_rows, strict=True)]
            rngs = [np.random.default_rng((order.seed, epoch, int(i), 2)) for i in index]
            drawn = [_augmented(d, r, policy, rng) for (d, r), rng in zip(chosen, rngs, strict=True)]
            pixels, labels, replaced = (np.stack(part) for part in zip(*drawn, strict=True))
            block = {"image": pixels, "label": labels, "index": index, "replaced": replaced}
            yield block | _shift(policy, rngs)


def _augmented(
    group: dict[str, list[Any]], row: int, policy: Images, rng: np.random.Generator
) -> tuple[np.ndarray, np.int64, np.bool_]:
    """Pixels and label of a row, or of the next of its row group that can be decoded; whether it is another.

    Which one is a function of the shards alone, so that every run and every rank replaces alike.
    """
    rows = len(group["image"])
    for step in range(rows):
        place = (row + step) % rows
        with contextlib.suppress(images.CorruptImage):
            pixels = augment(group["image"][place], policy, rng)
            return pixels, np.int64(group["label"][place]), np.bool_(step > 0)
    raise UnreadableShard(f"a row group of {rows} rows has no image that can be decoded")


def _shift(policy: Images, rngs: list[np.random.Generator]) -> dict[str, np.ndarray]:
    """The colour shift of each image, if the recipe asks for it; added on the device."""

    return {"shift": np.stack([images.pca_shift(rng) for rng in rngs])} if policy.color == "pca" else {}


def augment(data: bytes, policy: Images, rng: np.random.Generator) -> np.ndarray:
    """Bytes of an image -> (size, size, 3) uint8, by the recipe's training policy. A pure function of (bytes, rng)."""

    if policy.policy == "scale-jitter":
        assert policy.shorter_side is not None
        low, high = (policy.scaled(side) for side in policy.shorter_side)
        crop = images.scale_jitter_crop(data, rng, policy.size, (low, high))
    else:
        assert policy.area is not None
        crop = images.random_resized_crop(data, rng, policy.size, policy.area)
    return images.flip(crop, rng) if policy.flip else crop


def streamed_evaluation(
    split: Split, policy: Images, batch_size: int, rank: int, world_size: int, cpus: float
) -> Iterator[Batch]:
    """A rank's part of a split, each example once over all ranks, centre crops, in batches of at most batch_size."""
    part, starts = evaluation_slice(split.examples, rank, world_size), split.starts()
    spans = [(g, max(part.start, int(starts[g])), min(part.stop, int(starts[g + 1]))) for g in range(len(split.rows))]
    items = [{"group": g, "begin": b, "end": e} for g, b, e in spans if b < e]
    yield from _run(items, partial(_evaluate_groups, split, policy), batch_size, policy.size, cpus)


def _evaluate_groups(split: Split, policy: Images, item: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """A Ray Data task: a part of a row group -> centre crops."""
    for group, begin, end in zip(item["group"], item["begin"], item["end"], strict=True):
        rows, first = split.read(int(group)), int(split.starts()[group])
        for start in range(int(begin), int(end), EVAL_CHUNK):
            index = np.arange(start, min(start + EVAL_CHUNK, int(end)))
            pixels = [_centred(rows["image"][i - first], policy) for i in index]
            replaced = np.asarray([p is None for p in pixels])
            black = np.zeros((policy.size, policy.size, 3), dtype=np.uint8)
            labels = np.asarray([rows["label"][i - first] for i in index], dtype=np.int64)
            shown = np.stack([black if p is None else p for p in pixels])
            yield {"image": shown, "label": labels, "index": index, "replaced": replaced}


def _centred(data: bytes, policy: Images) -> np.ndarray | None:
    """The centre crop, or None: in evaluation an image that cannot be decoded counts too, as a black one."""
    try:
        return center(data, policy)
    except images.CorruptImage:
        return None


def center(data: bytes, policy: Images) -> np.ndarray:
    """Bytes of an image -> (size, size, 3) uint8: shorter side resized, centre cropped."""

    side = policy.size if policy.eval_shorter_side is None else policy.scaled(policy.eval_shorter_side)
    return images.center_crop(data, policy.size, side)


def _run(items: list[dict[str, int]], task: Any, batch_size: int, size: int, cpus: float) -> Iterator[Batch]:
    """Items through a Ray Data task to batches of numpy arrays, in the items' order."""
    import ray
    from ray.exceptions import RayError

    if not items:
        return
    # A task may wait, holding its CPUs, until its consumer takes what it made. Ranks wait for each other in every step,
    # so each must always be able to run a task of its own: none may hold more than its part of the cluster.
    each = min(1.0, cpus)
    _ordered()
    # A block a batch. By default Ray Data gathers 128 MiB, seven batches of 128 images, before the first one arrives.
    ray.data.DataContext.get_current().target_max_block_size = batch_size * size * size * 3
    source = ray.data.from_items(items, override_num_blocks=len(items))
    dataset = source.map_batches(task, batch_size=1, num_cpus=each, concurrency=max(1, int(cpus / each)))
    try:
        for block in dataset.iter_batches(batch_size=batch_size, prefetch_batches=2, batch_format="numpy"):
            arrays = cast("dict[str, np.ndarray]", block)
            replaced = int(arrays["replaced"].sum())
            yield Batch(arrays["image"], arrays["label"], arrays["index"], arrays.get("shift"), replaced)
    except RayError as error:  # a task's own error is somewhere inside
        found = re.search(r"UnreadableShard: (.+)", str(error))
        if found is None:
            raise
        raise UnreadableShard(found[1]) from None


def _ordered() -> None:
    """Set what the order depends on in this process: Ray Data hands blocks on in the order of the items."""
    import ray

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A fresh map process imports for up to a minute on a busy machine; Ray's own 30 minutes would hide a deadlock.
    context.execution_no_progress_timeout_s = 300


def sample(split: Split, policy: Images, examples: int = 2048) -> np.ndarray:
    """Centre crops of the first row groups, which preparation made a random sample: (N, S, S, 3) uint8."""
    groups = int(np.searchsorted(split.starts(), min(examples, split.examples)))
    part = Split(split.uri, split.name, split.files, split.places[:groups], split.rows[:groups])
    return np.concatenate([b.images for b in streamed_evaluation(part, policy, EVAL_CHUNK, 0, 1, 1.0)])
