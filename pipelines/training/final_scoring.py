"""The test of a finished network by the workers that trained it: in float32, without augmentation, once a run.

It leaves two files in the run's folder: final_test.json, and predictions.parquet with a row a validation image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pyarrow.fs import FileType
from torch import nn

from pipelines.prediction.predictions_file import PREDICTIONS, parquet_bytes, predictions_table
from pipelines.storage import Folder
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData
from pipelines.training.training_state import all_reduce
from resnet.evaluation.error_summary import Ranked, percent_wrong
from resnet.evaluation.final_test import FINAL_TEST, FinalTest, packed
from resnet.training.step import eval_step


@torch.no_grad()
def test_finished(task: RankData, learner: Learner, seen: Callable[[int], None]) -> None:
    """Test the network on both splits and write what came out, unless an earlier start has. Called by all ranks.

    seen: told of this rank's images as they go by.
    """
    folder = Folder(task.run.folder)
    done = torch.tensor([int(task.rank == 0 and folder.kind(FINAL_TEST) != FileType.NotFound)], device=task.device)
    torch.distributed.broadcast(done, src=0)
    if int(done):
        return
    with learner.evaluated() as network:
        sums = torch.zeros(4, dtype=torch.float64, device=task.device)
        for batch in task.evaluation("train"):
            sums += eval_step(network, *task.tensors(batch), "float32")
            seen(len(batch.labels))
        train = all_reduce(sums)
        parts: list[Any] = [None] * task.world_size
        torch.distributed.gather_object(_answers(task, network, seen), parts if task.rank == 0 else None, dst=0)
    if int(train[3]) != task.feed.train.examples:
        raise RuntimeError(f"the final test counted {int(train[3])} of {task.feed.train.examples} training images")
    if task.rank == 0:
        ranked = Ranked(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        _write(folder, task, ranked, train)


test_finished.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  no test of pytest's


def _answers(task: RankData, network: nn.Module, seen: Callable[[int], None]) -> tuple[np.ndarray, ...]:
    """Labels, best classes, their scores and the label's score of this rank's part of the validation split."""
    rows = []
    for batch in task.evaluation():
        pixels, labels = task.tensors(batch)
        scores = network(pixels).double().softmax(1).cpu().numpy()
        ranked = Ranked.of(scores, labels.cpu().numpy())
        rows.append((ranked.labels, ranked.top, ranked.scores, ranked.of_label))
        seen(len(batch.labels))
    if rows:
        return tuple(np.concatenate(columns) for columns in zip(*rows, strict=True))
    best = min(5, len(task.feed.classes))  # a rank without an image, of a split smaller than the number of ranks
    return np.empty(0, np.int64), np.empty((0, best), np.int64), np.empty((0, best)), np.empty(0)


def _write(folder: Folder, task: RankData, ranked: Ranked, train: list[float]) -> None:
    """Both files; final_test.json last, so that where it is the other is whole."""
    if len(ranked.labels) != task.feed.val.examples:
        raise RuntimeError(f"the final test counted {len(ranked.labels)} of {task.feed.val.examples} validation images")
    file = _predictions(task, ranked)
    with folder.writing(PREDICTIONS) as target:
        target.write(file)
    right = ranked.top == ranked.labels[:, None]
    test = FinalTest(
        train_error=100 * train[1] / train[3],
        train_examples=int(train[3]),
        top1_error=percent_wrong(right[:, 0]),
        top5_error=percent_wrong(np.any(right, axis=1)),
        examples=len(ranked.labels),
        predictions_sha256=hashlib.sha256(file).hexdigest(),
        right=packed(right[:, 0]),
    )
    with folder.writing(FINAL_TEST) as target:
        target.write(test.model_dump_json(indent=1).encode())


def _predictions(task: RankData, ranked: Ranked) -> bytes:
    """The file with the validation split's predictions."""
    val = task.feed.val
    keys = [key for group in range(len(val.rows)) for key in val.read(group, ("key",))["key"]]
    return parquet_bytes(predictions_table(keys, ranked, "float32"))
