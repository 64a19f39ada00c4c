"""The loop in this process: stopped anywhere it goes on bit for bit."""

import itertools
import json
import time

import pytest
import torch

from pipelines.dense.dense_loop import FINAL_FIGURES, train_dense
from pipelines.dense.dense_saving import DenseStore
from tests.pipelines.dense.local_rank import LocalRank, folder_of, local_rank
from tests.pipelines.dense.small_sets import small_run

pytestmark = pytest.mark.usefixtures("ray_local", "alone")


class Dying(LocalRank):
    """A task whose data end in the second epoch."""

    def training(self, epoch, first_step):
        batches = super().training(epoch, first_step)
        yield from itertools.islice(batches, 1) if epoch else batches
        if epoch:
            raise ConnectionError("the data are gone")


def test_a_stopped_run_goes_on_bit_for_bit(shards, tmp_path):
    whole, stopped = (small_run(shards, tmp_path / name) for name in ("whole", "stopped"))
    train_dense(local_rank(whole))
    with pytest.raises(ConnectionError):
        train_dense(local_rank(stopped, Dying))
    store, until = DenseStore.of_dense(stopped), time.monotonic() + 60
    while not store.names() and time.monotonic() < until:  # a thread writes it
        time.sleep(0.01)
    assert store.names()[-1] in ("step-00000003", "step-00000004")
    train_dense(local_rank(stopped))
    expected, found = (DenseStore.of_dense(run).latest() for run in (whole, stopped))
    assert expected is not None
    assert found is not None
    for a, b in ((expected[1].model, found[1].model), (expected[1].optimizer, found[1].optimizer)):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    rows, same = expected[1].progress.rows, found[1].progress.rows
    assert [(r.step, r.train_loss, r.quality) for r in rows] == [(r.step, r.train_loss, r.quality) for r in same]
    assert [row.step for row in rows] == [3, 5]
    figures = json.loads((folder_of(whole) / FINAL_FIGURES).read_text())
    assert len(figures["by_class"]) == 2
    assert rows[-1].quality == figures.get("mean_ap", figures.get("mean_iou"))
