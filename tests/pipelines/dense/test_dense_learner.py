from typing import Any

import pytest
import torch

from pipelines.dense.dense_learner import DenseLearner
from tests.pipelines.dense.local_rank import local_rank
from tests.pipelines.dense.small_sets import small_run

pytestmark = pytest.mark.usefixtures("alone")


def test_a_step_lowers_the_loss_and_leaves_what_is_frozen(shards, tmp_path):
    task = local_rank(small_run(shards, tmp_path))
    learner = DenseLearner(task, None)
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    batch = next(task.training(0, 0))
    losses = [float(learner.step(batch, 0, 0, 0.02)[0]) for _ in range(6)]  # the same draws in each
    assert losses[-1] < losses[0]
    after = learner.network.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not any("layer1" in name or name.split("body.")[-1] == "conv1.weight" for name in changed)
    assert any("layer4" in name for name in changed)


def test_a_step_is_a_function_of_its_seed_epoch_and_number(shards, tmp_path):
    task = local_rank(small_run(shards, tmp_path))
    batch = next(task.training(0, 0))
    first, second = (DenseLearner(task, None).step(batch, 0, 0, 0.01) for _ in range(2))
    assert torch.equal(first, second)


def test_an_evaluation_counts_each_image_once(shards, tmp_path):
    found: list[Any] = list(DenseLearner(local_rank(small_run(shards, tmp_path)), None).evaluate())
    *seen, figures = found
    assert sum(seen) == 4
    assert 0 <= figures.get("mean_ap", figures.get("mean_iou")) <= 100
    assert len(figures["by_class"]) == 2
