"""The finished network is tested once, on both splits, and its answers are kept beside the run."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet

from pipelines.training.final_scoring import test_finished as score_finished
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData
from resnet.evaluation.final_test import FinalTest
from tests.pipelines.training.digits_run import CPU, small

pytestmark = pytest.mark.usefixtures("one_rank")


def test_both_splits_are_counted_as_a_plain_loop_does(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    run = small(tmp_path, {"ema": 0.9})
    task = RankData(run, data[1], 0, 1, CPU)
    learner = Learner(task, None)
    learner.step(*task.tensors(next(task.training(0, 0))), 0, 0, 0.1)
    score_finished(task, learner, lambda _: None)
    found = FinalTest(**json.loads(Path(run.folder, "final_test.json").read_text()))
    with learner.evaluated() as network, torch.no_grad():
        answers = {}
        for split in ("train", "val"):
            resident = task.split(split)
            pixels = task.normalize(torch.from_numpy(resident.images.copy()))
            answers[split] = (network(pixels).topk(5).indices.numpy(), resident.labels)
    for split, error, count in (("train", found.train_error, found.train_examples),
                                ("val", found.top1_error, found.examples)):  # fmt: skip
        best, labels = answers[split]
        assert count == len(labels)
        wrong = int((best[:, 0] != labels).sum())
        assert abs(error * count / 100 - wrong) <= 1, "of equal scores another may be first"
    best, labels = answers["val"]
    assert (found.are_right() != (best[:, 0] == labels)).sum() <= 1
    file = Path(run.folder, "predictions.parquet").read_bytes()
    assert hashlib.sha256(file).hexdigest() == found.predictions_sha256
    rows = parquet.read_table(Path(run.folder, "predictions.parquet"))
    val = task.feed.val
    assert rows["key"].to_pylist() == [k for g in range(len(val.rows)) for k in val.read(g, ("key",))["key"]]
    assert rows["label"].to_pylist() == labels.tolist()
    np.testing.assert_array_equal(np.array(rows["top"].to_pylist())[:, 0] == labels, found.are_right())


def test_what_is_there_is_not_tested_again(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    run = small(tmp_path)
    task = RankData(run, data[1], 0, 1, CPU)
    Path(run.folder).mkdir(parents=True)
    Path(run.folder, "final_test.json").write_text("of an earlier start")
    score_finished(task, Learner(task, None), lambda _: None)
    assert [path.name for path in Path(run.folder).iterdir()] == ["final_test.json"]
