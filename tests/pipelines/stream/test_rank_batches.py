"""What the tasks and the worker's threads do, without Ray between them."""

import io
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from pipelines.shards import row_groups
from pipelines.stream import streamed
from pipelines.stream.augmentation import EpochAugmentation
from pipelines.stream.example_order import Order
from pipelines.stream.rank_batches import RankEpoch, encoded_rows, joined
from resnet.images.crops.training_crops import random_resized_crop
from resnet.images.jpeg_header import read_jpeg_header
from resnet.recipes.recipe_settings import Images

JITTER = Images(size=32, policy="scale-jitter", shorter_side=(256, 480), color="pca", eval_shorter_side=256)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> row_groups.Split:
    """60 images of 3 classes, in row groups of 8."""
    folder, rng = tmp_path_factory.mktemp("part"), np.random.default_rng(0)
    for i in range(70):
        place = folder / "source" / ("train" if i < 60 else "val") / f"class{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        data = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        small.resize((50, 60)).save(data, "JPEG")
        (place / f"{i}.JPEG").write_bytes(data.getvalue())
    out = str(Path(folder) / "out")
    write_shards(Source(path=str(folder / "source")), out, row_group_size=8, workers=0)
    return row_groups.open_split(out, "train")[1]


def part_of(train: row_groups.Split, rank: int = 0, world_size: int = 1, step: int = 0) -> RankEpoch:
    return RankEpoch(EpochAugmentation(train, JITTER, 5, 3), Order(train.rows, 12, 3, seed=5), step, rank, world_size)


def test_tasks_and_threads_make_the_same_batches(train: row_groups.Split) -> None:
    part = part_of(train)
    windows = len(part.windows())
    blocks = streamed._decode(part, {"begin": np.array([0, 1]), "end": np.array([1, windows])})
    early = [{name: array.copy() for name, array in block.items()} for block in blocks]
    late = list(streamed._late(part, part.tables(0, windows), 2))
    assert len(early) == len(late) == 5
    for block, batch in zip(early, late, strict=True):
        np.testing.assert_array_equal(block["image"], batch.images)
        np.testing.assert_array_equal(block["label"], batch.labels)
        np.testing.assert_array_equal(block["index"], batch.ids)
        np.testing.assert_array_equal(block["shift"], batch.shift)


@settings(max_examples=10, deadline=None)
@given(cut=st.integers(1, 61))
def test_blocks_that_ray_has_cut_or_joined_give_the_same_batches(train: row_groups.Split, cut: int) -> None:
    part = part_of(train)
    whole = pa.concat_tables(part.tables(0, len(part.windows())))
    pieces = [whole.slice(i, cut) for i in range(0, whole.num_rows, cut)]
    found = [rows.ids.tolist() for rows in streamed._regrouped(iter(pieces), 12)]
    assert found == [table["index"].to_pylist() for table in part.tables(0, len(part.windows()))]


@pytest.mark.parametrize(("world_size", "step"), [(2, 0), (4, 3)])
def test_ranks_share_the_rows_of_each_batch(train: row_groups.Split, world_size: int, step: int) -> None:
    alone = [table["index"].to_pylist() for table in part_of(train).tables(0, 99)][step:]
    ranks = [
        [t["index"].to_pylist() for t in part_of(train, rank, world_size, step).tables(0, 99)]
        for rank in range(world_size)
    ]
    assert [list(chain.from_iterable(parts)) for parts in zip(*ranks, strict=True)] == alone


def test_views_of_a_block_take_the_fast_way(train: row_groups.Split) -> None:
    table = next(part_of(train).tables(0, 1))
    views, files = encoded_rows(table).images, table["image"].to_pylist()
    assert [bytes(view) for view in views] == files
    assert [read_jpeg_header(view) for view in views] == [read_jpeg_header(file) for file in files]
    assert None not in [read_jpeg_header(view) for view in views]
    for view, file in zip(views, files, strict=True):
        ours, wanted = (random_resized_crop(data, np.random.default_rng(1), 32) for data in (view, file))
        np.testing.assert_array_equal(ours, wanted)


def test_empty_files_are_files_too() -> None:
    files = [b"", b"one", b"", b"three", b""]
    for some in (files, [b""], files[1:]):
        column = joined([memoryview(file) for file in some])
        assert column.to_pylist() == some
        table = pa.table({"image": column, "label": range(len(some)), "index": range(len(some))})
        assert [bytes(view) for view in encoded_rows(table.slice(1)).images] == some[1:]


def test_rows_are_those_of_the_shards(train: row_groups.Split) -> None:
    rows = [train.read(g) for g in range(len(train.rows))]
    files = [file for group in rows for file in group["image"]]
    labels = [label for group in rows for label in group["label"]]
    for table in part_of(train).tables(0, 99):
        places = table["index"].to_pylist()
        assert table["image"].to_pylist() == [files[i] for i in places]
        assert table["label"].to_pylist() == [labels[i] for i in places]
