"""Shards -> batches of one worker, by Ray Data. Which example comes when is pipelines/stream/example_order.py's, a pure
function.

Two ways, chosen by the recipe's policy. Streamed: each worker runs a Ray Data pipeline of its own over the windows of
an epoch, whose tasks read the worker's row groups and hand on its batches in order. Images are decoded in the tasks, on
any node of the cluster, or late, in threads of the worker: data.decode; the batches are the same bit for bit.
Resident (pipelines/stream/in_memory.py): a small set is decoded once, and a batch is an index into it.
"""

from __future__ import annotations

import gc
import re
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipelines.cluster.free_cpus import TaskBudget
from pipelines.shards.row_groups import Split, UnreadableShard
from pipelines.stream.augmentation import Batch, BegunBatch, Encoded, EpochAugmentation, center
from pipelines.stream.example_order import Order, evaluation_slice
from pipelines.stream.rank_batches import RankEpoch, encoded_rows
from resnet.host import glibc_allocator
from resnet.images.checks import image_limits

if TYPE_CHECKING:
    import pyarrow as pa

    from resnet.recipes.recipe_settings import Images


EVAL_CHUNK = 64  # images that an evaluation task yields at once
SHIPPED = 3  # batches of encoded images in a block: less costs more calls, more makes the consumer wait for a block
MOST_SHIPPED = 2**26  # bytes of a block
ITEMS = 64  # of an epoch; each costs a millisecond before the first batch, 621 windows of ImageNet would take 0.7 s
AHEAD = 2  # batches that a worker's threads decode ahead
BUFFERS = AHEAD + 2  # with the batch that is looked at, and the one before, which a GPU may still copy


def streamed_batches(
    split: Split,
    order: Order,
    policy: Images,
    epoch: int,
    first_step: int,
    rank: int,
    world_size: int,
    room: TaskBudget,
    decode: Literal["tasks", "worker"] = "tasks",
    threads: int = 1,
    memory: Callable[[], np.ndarray] | None = None,
) -> Iterator[Batch]:
    """A rank's training batches of an epoch from `first_step` on.

    room: what this rank's tasks may hold; decode: where images are decoded; threads: of this process, that decode.
    memory: gives (N, S, S, 3) uint8 that they decode into; BUFFERS arrays in turn will do for a consumer that, when it
    asks for a batch, needs the one before no more, or only until the next is asked for. None: fresh memory.
    """
    part = RankEpoch(EpochAugmentation(split, policy, order.seed, epoch), order, first_step, rank, world_size)
    windows, tasks = len(part.windows()), room.tasks
    # With several tasks at a time, one that has many windows would make all others wait for its end.
    width = -(-windows // (ITEMS if tasks == 1 or decode == "worker" else 4 * ITEMS))
    items = [{"begin": i, "end": min(i + width, windows)} for i in range(0, windows, width)]
    if decode == "worker":
        few = room._replace(tasks=min(2, tasks))  # reading is little work
        # A block ends with the batch that makes it large enough.
        block_size = min(MOST_SHIPPED, round((SHIPPED - 0.5) * part.batch_size * split.mean_bytes))
        with closing(through_tasks(items, partial(_ship, part), block_size, None, few, "pyarrow")) as blocks:
            yield from _late(part, blocks, max(1, threads), memory)
        return
    block_size = part.batch_size * policy.size**2 * 3
    with closing(through_tasks(items, partial(_decode, part), block_size, None, room, "numpy")) as blocks:
        for block in blocks:
            assert len(block["label"]) == part.batch_size
            yield _batch(block)


def _ship(part: RankEpoch, item: dict[str, np.ndarray]) -> Iterator[pa.Table]:
    """A Ray Data task: some windows of one rank -> its batches, undecoded."""
    _settle()
    for begin, end in zip(item["begin"], item["end"], strict=True):
        yield from part.tables(int(begin), int(end))


@cache
def _settle() -> None:
    """Once in a process of tasks: it keeps its memory, and Python's collector leaves alone what is there by now.

    Thousands of views a second make it look through all modules again and again, a fifth of such a task's time.
    """
    import pyarrow as pa

    if glibc_allocator.keep():
        pa.set_memory_pool(pa.system_memory_pool())
    gc.freeze()


def _decode(part: RankEpoch, item: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """A Ray Data task: some windows of one rank -> its batches, decoded and augmented, in order."""
    size = part.pictures.policy.size
    # Ray Data has copied a block into the object store before it asks for the next. Fresh memory costs a page fault for
    # each 4 KiB, a tenth of the whole time where images are small.
    pixels = np.empty((part.batch_size, size, size, 3), np.uint8)
    with ThreadPoolExecutor(1) as pool:
        for table in _ship(part, item):
            batch = part.pictures.start(encoded_rows(table), pool, pixels)()
            replaced, seconds = np.zeros(len(batch.labels), np.int64), np.zeros(len(batch.labels))
            replaced[0], seconds[0] = batch.replaced, batch.seconds
            sums = {"replaced": replaced, "seconds": seconds}
            block = {"image": batch.images, "label": batch.labels, "index": batch.ids, **sums}
            yield block if batch.shift is None else block | {"shift": batch.shift}


def _batch(block: dict[str, np.ndarray]) -> Batch:
    seconds = float(block["seconds"].sum()) if "seconds" in block else 0.0  # evaluations take none
    sums = int(block["replaced"].sum()), seconds
    return Batch(block["image"], block["label"], block["index"], block.get("shift"), *sums)


def _late(
    part: RankEpoch, blocks: Iterator[pa.Table], threads: int, memory: Callable[[], np.ndarray] | None = None
) -> Iterator[Batch]:
    """Undecoded blocks -> batches, decoded ahead by threads of this process, mostly outside of Python."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    started: deque[BegunBatch] = deque()
    try:
        for rows in _regrouped(blocks, part.batch_size):
            started.append(part.pictures.start(rows, pool, None if memory is None else memory()))
            if len(started) > AHEAD:
                ready = sum(begun.is_ready() for begun in started)
                yield started.popleft()()._replace(ready=ready)
        while started:
            yield started.popleft()()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # what threads look at is the object store's


def _regrouped(blocks: Iterator[pa.Table], size: int) -> Iterator[Encoded]:
    """Blocks, which Ray Data may have cut, as batches."""
    held: list[Encoded] = []
    for block in blocks:
        held.append(encoded_rows(block))
        while sum(len(rows.images) for rows in held) >= size:
            files = [file for rows in held for file in rows.images]
            labels, ids = (np.concatenate(columns) for columns in zip(*((r.labels, r.ids) for r in held), strict=True))
            yield Encoded(files[:size], labels[:size], ids[:size])
            held = [Encoded(files[size:], labels[size:], ids[size:])]
    assert not any(rows.images for rows in held), "an epoch has whole batches"


def streamed_evaluation(
    split: Split, policy: Images, batch_size: int, rank: int, world_size: int, room: TaskBudget
) -> Iterator[Batch]:
    """A rank's part of a split, each example once over all ranks, centre crops, in batches of at most batch_size.

    Decoded in tasks whatever data.decode says: nothing is trained meanwhile.
    """
    part, starts = evaluation_slice(split.examples, rank, world_size), split.starts()
    spans = [(g, max(part.start, int(starts[g])), min(part.stop, int(starts[g + 1]))) for g in range(len(split.rows))]
    items = [{"group": g, "begin": b, "end": e} for g, b, e in spans if b < e]
    task, block_size = partial(_evaluate_groups, split, policy), batch_size * policy.size**2 * 3
    with closing(through_tasks(items, task, block_size, batch_size, room, "numpy")) as blocks:
        for block in blocks:
            yield _batch(block)


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
    except image_limits.CorruptImage:
        return None


def through_tasks(
    items: list[dict[str, int]],
    task: Any,
    block_size: int,
    batch_size: int | None,
    room: TaskBudget,
    batch_format: str,
) -> Generator[Any]:
    """Items through Ray Data tasks to blocks, in the items' order.

    block_size: bytes; by default Ray Data gathers 128 MiB, seven batches of 128 images, before the first one arrives.
    A task may wait, holding its CPUs, until its consumer takes what it made. Ranks wait for each other in every step,
    so each must always be able to run a task of its own: none may hold more than its part of the cluster.
    """
    import ray
    from ray.exceptions import RayError

    from pipelines.cluster.data_execution import BLOCKS, settle

    if not items:
        return
    context = settle(300)  # a fresh process of tasks imports for up to a minute on a busy machine
    context.execution_options.preserve_order = True
    context.target_max_block_size = block_size
    source = ray.data.from_items(items, override_num_blocks=len(items))
    dataset = source.map_batches(task, batch_size=1, num_cpus=room.each, concurrency=room.tasks)
    try:
        # Without a batch size blocks come as they are: nothing is cut, put together or copied.
        for block in dataset.iter_batches(batch_size=batch_size, prefetch_batches=2, batch_format=batch_format):
            BLOCKS.took_block()
            yield block
    except RayError as error:  # a task's own error is somewhere inside
        found = re.search(r"UnreadableShard: (.+)", str(error))
        if found is None:
            raise
        raise UnreadableShard(found[1]) from None


def sample_crops(split: Split, policy: Images, examples: int = 2048) -> np.ndarray:
    """Centre crops of the first row groups, which preparation made a random sample: (N, S, S, 3) uint8.

    A few seconds of one task, which holds no CPU: those of a run that was killed may not be free yet.
    """
    groups = int(np.searchsorted(split.starts(), min(examples, split.examples)))
    part = replace(split, places=split.places[:groups], rows=split.rows[:groups])
    return np.concatenate([b.images for b in streamed_evaluation(part, policy, EVAL_CHUNK, 0, 1, TaskBudget(0.0, 1))])
