import json

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pipelines.cluster.free_cpus import TaskBudget
from pipelines.shards.row_groups import Split
from pipelines.stream.example_order import Order
from pipelines.stream.target_batches import EpochPart, evaluation_rows, training_rows

ROWS = (5, 5, 3)


SCHEMA = pa.schema([("image", pa.binary()), ("target", pa.binary()), ("key", pa.string())])


@pytest.fixture
def split(tmp_path):
    file, first = "train-00000-of-00001.parquet", 0
    with parquet.ParquetWriter(tmp_path / file, SCHEMA) as writer:
        for count in ROWS:
            index = range(first, first + count)
            rows = [{"image": b"i%d" % i, "target": json.dumps(i).encode(), "key": f"k{i}"} for i in index]
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            first += count
    places = tuple((0, g) for g in range(len(ROWS)))
    return Split(str(tmp_path), "train", (file,), places, ROWS, 20.0)


def told(split, order, epoch, first, rank, world):
    part = EpochPart(split, order, epoch, first, rank, world)
    items = [{"window": np.array([w]), "skip": np.array([s])} for w, s in order.remaining(epoch, first)]
    return [table["place"].to_pylist() for item in items for table in part.tables(item)]


def test_ranks_share_the_batches_of_one(split):
    order = Order(ROWS, batch_size=4, window=2, seed=1)
    whole = told(split, order, 0, 0, 0, 1)
    halves = [told(split, order, 0, 0, rank, 2) for rank in range(2)]
    assert [a + b for a, b in zip(*halves, strict=True)] == whole
    assert sum(map(len, whole)) == 12
    assert len({i for batch in whole for i in batch}) == 12
    assert told(split, order, 0, 2, 0, 1) == whole[2:]


def test_a_row_has_its_own_target_and_key(split):
    part = EpochPart(split, Order(ROWS, 4, 2, 1), 0, 0, 0, 1)
    for table in part.tables({"window": np.array([0]), "skip": np.array([0])}):
        for row in table.to_pylist():
            i = row["place"]
            assert (row["image"], json.loads(row["target"]), row["key"]) == (b"i%d" % i, i, f"k{i}")


def test_ray_data_hands_on_the_same_rows_in_order(split, ray_local):
    order = Order(ROWS, 4, 2, 1)
    found = list(training_rows(EpochPart(split, order, 0, 1, 0, 1), TaskBudget(0.5, 1)))
    assert [[row.place for row in batch] for batch in found] == told(split, order, 0, 1, 0, 1)
    parts = [[row.place for row in evaluation_rows(split, rank, 2, TaskBudget(0.5, 1))] for rank in range(2)]
    assert parts == [list(range(6)), list(range(6, 13))]
