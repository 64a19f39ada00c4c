"""The stream as Ray Data really delivers it: the same pictures in the same batches for any number of workers."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs
from pyarrow import parquet as pq

from pipelines.cluster import data_execution, ray_internals
from pipelines.cluster.free_cpus import TaskBudget
from pipelines.shards import row_groups
from pipelines.stream import augmentation, streamed
from pipelines.stream.example_order import Order
from pipelines.stream.rank_batches import RankEpoch
from resnet.images.crops.pca_color import pca_shift
from resnet.recipes.recipe_settings import Images
from resnet.training.devices.pinned_ring import PinnedRing
from tests.s3_server import options_of, s3_server

Where = Literal["tasks", "worker"]
JITTER = Images(size=32, policy="scale-jitter", shorter_side=(256, 480), color="pca", eval_shorter_side=256)


@pytest.fixture(scope="module")
def alone(ray_local: Any, shards: str) -> dict[str, np.ndarray]:
    """An epoch of one worker: images, labels and ids, each (steps, 24, ...)."""
    return epoch(shards, 1)


def epoch(
    shards: str, world_size: int, first_step: int = 0, images: Images = JITTER, decode: Where = "tasks"
) -> dict[str, np.ndarray]:
    """An epoch as `world_size` ranks get it one after the other; global batches put together rank after rank."""
    _, split = row_groups.open_split(shards, "train")
    order = Order(split.rows, 24, 4, seed=5)
    ranks = []
    for rank in range(world_size):
        place = (3, first_step, rank, world_size, TaskBudget(1.0, 1), decode, 2)
        batches = list(streamed.streamed_batches(split, order, images, *place))
        assert all(len(batch.labels) == 24 // world_size for batch in batches)
        assert all(0 < batch.seconds < 60 for batch in batches), "decoding takes time, wherever it is done"
        ready = [batch.ready for batch in batches if batch.ready is not None]
        assert len(ready) == (max(0, len(batches) - streamed.AHEAD) if decode == "worker" else 0)
        assert all(0 <= waiting <= streamed.AHEAD + 1 for waiting in ready)
        ranks.append(batches)
    parts = [list(step) for step in zip(*ranks, strict=True)]
    return {
        "images": np.stack([np.concatenate([b.images for b in step]) for step in parts]),
        "labels": np.stack([np.concatenate([b.labels for b in step]) for step in parts]),
        "ids": np.stack([np.concatenate([b.ids for b in step]) for step in parts]),
        "shift": np.stack([np.concatenate([b.shift for b in step if b.shift is not None]) for step in parts]),
        "replaced": np.asarray(sum(b.replaced for step in parts for b in step)),
    }


def test_every_image_comes_once_with_its_label(alone: dict[str, np.ndarray], shards: str) -> None:
    _, split = row_groups.open_split(shards, "train")
    labels = np.concatenate([split.read(g)["label"] for g in range(len(split.rows))])
    assert alone["images"].shape == (6, 24, 32, 32, 3)
    assert len(np.unique(alone["ids"])) == 144
    np.testing.assert_array_equal(labels[alone["ids"]], alone["labels"])


def test_pictures_are_a_function_of_bytes_seed_epoch_and_place(alone: dict[str, np.ndarray], shards: str) -> None:
    _, split = row_groups.open_split(shards, "train")
    files = [file for g in range(len(split.rows)) for file in split.read(g)["image"]]
    for step, row in ((0, 0), (3, 17), (5, 23)):
        place = int(alone["ids"][step, row])
        rng = np.random.default_rng((5, 3, place, 2))
        np.testing.assert_array_equal(augmentation.augment(files[place], JITTER, rng), alone["images"][step, row])
        np.testing.assert_array_equal(pca_shift(rng), alone["shift"][step, row])


@pytest.mark.parametrize(("world_size", "decode"), [(4, "tasks"), (1, "worker"), (2, "worker")])
def test_pictures_and_batches_are_the_same_for_any_number_of_workers_and_wherever_they_are_decoded(
    alone: dict[str, np.ndarray], shards: str, world_size: int, decode: Where
) -> None:
    several = epoch(shards, world_size, decode=decode)
    for name, array in alone.items():
        np.testing.assert_array_equal(several[name], array, err_msg=name)


@pytest.mark.parametrize(("step", "decode"), [(1, "tasks"), (4, "tasks"), (4, "worker")])
def test_a_resume_inside_the_epoch_goes_on_with_the_next_batch(
    alone: dict[str, np.ndarray], shards: str, step: int, decode: Where
) -> None:
    rest = epoch(shards, 2, first_step=step, decode=decode)
    for name in ("images", "labels", "ids"):
        np.testing.assert_array_equal(rest[name], alone[name][step:], err_msg=name)


def test_an_executor_that_has_to_wait_does_not_spin(
    ray_local: Any, shards: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread holds Python's lock, which the threads that decode and train need."""
    callback: Any = ray_internals.paced(data_execution.BLOCKS.seconds)
    seen, pace = [0], callback.on_execution_step

    def counted(self: Any, executor: Any) -> None:
        seen[0] += 1
        pace(self, executor)

    monkeypatch.setattr(callback, "on_execution_step", counted)
    split = row_groups.open_split(shards, "train")[1]
    split = replace(split, places=40 * split.places, rows=40 * split.rows)  # more than Ray Data has room for
    batches = streamed.streamed_batches(split, Order(split.rows, 24, 4, 0), JITTER, 0, 0, 0, 1, TaskBudget(1.0, 1))
    with closing(batches):  # pyright: ignore[reportArgumentType]  it is a generator
        next(batches)
        begin, before = time.monotonic(), seen[0]
        time.sleep(1)
        assert seen[0] - before <= 1.1 * (time.monotonic() - begin) / data_execution.SLOWEST


def test_batches_decoded_into_a_ring_of_buffers_are_the_same(shards: str) -> None:
    """Each is whole until the one after the next is asked for, as a GPU that still copies it needs."""
    split = row_groups.open_split(shards, "train")[1]
    part = RankEpoch(augmentation.EpochAugmentation(split, JITTER, 5, 3), Order(split.rows, 24, 4, 5), 0, 0, 1)
    tables = list(part.tables(0, len(part.windows())))
    expected = [batch.images for batch in streamed._late(part, iter(tables), 2)]
    ring = PinnedRing(streamed.BUFFERS, (24, 32, 32, 3), pinned=False)
    before = None
    for batch, images in zip(streamed._late(part, iter(tables), 2, ring.take), expected, strict=True):
        assert ring.holds(batch.images)
        np.testing.assert_array_equal(batch.images, images)
        if before is not None:
            np.testing.assert_array_equal(*before)
        before = batch.images, images


def test_evaluation_counts_every_image_once_for_any_number_of_workers(ray_local: Any, shards: str) -> None:
    _, split = row_groups.open_split(shards, "val")
    seen = {}
    for world_size in (1, 2):
        batches = [
            batch
            for rank in range(world_size)
            for batch in streamed.streamed_evaluation(split, JITTER, 10, rank, world_size, TaskBudget(1.0, 1))
        ]
        seen[world_size] = batches
        assert np.concatenate([b.ids for b in batches]).tolist() == list(range(37))
    one, two = (np.concatenate([b.images for b in seen[n]]) for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_a_shard_that_cannot_be_read_is_named(ray_local: Any, copy: Path) -> None:
    """Through Ray's error of a task; what is unreadable otherwise is told alike, see test_row_groups.py."""
    name = row_groups.open_split(str(copy), "train")[1].files[0]
    (copy / name).unlink()
    with pytest.raises(row_groups.UnreadableShard, match=f"shard {name} of .* cannot be read") as caught:
        epoch(str(copy), 1)
    assert "\n" not in str(caught.value)


@pytest.fixture
def bucket(ray_local: Any, copy: Path) -> Iterator[str]:
    """The same shards on an S3 server on the loopback interface."""
    with s3_server("images") as address:
        uri = f"s3://images/shards?{options_of(address)}"
        system, root = fs.FileSystem.from_uri(uri)
        fs.copy_files(str(copy), root, source_filesystem=fs.LocalFileSystem(), destination_filesystem=system)
        yield uri


def test_a_bucket_streams_the_same_batches_and_a_shard_that_vanishes_is_named(
    alone: dict[str, np.ndarray], bucket: str
) -> None:
    for several in (epoch(bucket, 1), epoch(bucket, 2, decode="worker")):
        for name, array in alone.items():
            np.testing.assert_array_equal(several[name], array, err_msg=name)
    split = row_groups.open_split(bucket, "train")[1]
    system, root = fs.FileSystem.from_uri(bucket)
    batches = streamed.streamed_batches(split, Order(split.rows, 24, 4, seed=5), JITTER, 3, 0, 0, 1, TaskBudget(1.0, 1))
    next(batches)
    for file in split.files:
        system.delete_file(f"{root}/{file}")
    with pytest.raises(row_groups.UnreadableShard, match=r"shard train-\d+\S+ of s3://\S+ cannot be read"):
        list(batches)


def test_an_image_that_cannot_be_decoded_is_replaced_alike_everywhere(ray_local: Any, copy: Path) -> None:
    shard = next(iter(sorted(copy.glob("train-*.parquet"))))
    table = pq.read_table(shard)
    images = table["image"].to_pylist()
    images[3] = b"no image"
    table = table.set_column(0, "image", pa.array(images, pa.binary()))
    pq.write_table(table, shard, row_group_size=16, compression="none")
    one, late = epoch(str(copy), 1), epoch(str(copy), 2, decode="worker")
    for name, array in one.items():
        np.testing.assert_array_equal(array, late[name], err_msg=name)
    assert one["replaced"] <= 1
    _, split = row_groups.open_split(str(copy), "train")
    batches = list(streamed.streamed_evaluation(split, JITTER, 10, 0, 1, TaskBudget(1.0, 1)))
    assert sum(batch.replaced for batch in batches) == 1
    assert np.concatenate([b.images for b in batches])[3].max() == 0, "it counts, as a black image"
    assert sum(len(b.labels) for b in batches) == 150
