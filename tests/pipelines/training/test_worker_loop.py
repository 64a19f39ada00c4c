"""The training loop in this process: stopped anywhere it goes on bit for bit, and ends where it should."""

import importlib.util
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.models.initial_weights import identified
from pipelines.run import Run
from pipelines.stream.augmentation import Batch
from pipelines.stream.in_memory import Draws
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData, class_counts
from pipelines.training.run_folder import RunFolder
from pipelines.training.worker_loop import train
from tests.pipelines.training.digits_run import CPU, same, small, trained

pytestmark = pytest.mark.usefixtures("one_rank")

GENTLE = {"kind": "step", "milestones": (0.5,), "gamma": 0.1, "gentle_lr": 1e-4, "gentle_error": 80}


ALONE = {"workers": 1}


NO_ARCFACE = pytest.mark.skipif(
    not importlib.util.find_spec("pytorch_metric_learning"), reason="pytorch-metric-learning is missing: an older .venv"
)
ANGULAR = {"ema": 0.9, "loss": {"kind": "arcface", "scale": 16}, "bn_batch": 16}
EVERYTHING = {"ema": 0.9, "loss": {"mixup": 0.2, "cutmix": 1.0}, "bn_examples": 512, "schedule": GENTLE}


class Dying(RankData):
    """A task whose data end in the middle of the first epoch, after a checkpoint."""

    def training(self, epoch: int, first_step: int) -> Iterator[Batch | Draws]:
        yield from itertools.islice(super().training(epoch, first_step), 18)
        raise ConnectionError("the data are gone")


@pytest.mark.parametrize(
    ("recipe", "scaling"),
    [
        ({"precision": "auto"}, {}),
        (EVERYTHING | {"bn_batch": 16}, {}),
        pytest.param(ANGULAR, {}, marks=NO_ARCFACE),
    ],
)
def test_a_stopped_run_goes_on_bit_for_bit(
    recipe: dict[str, Any], scaling: dict[str, Any], data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    expected = trained(small(tmp_path / "whole", recipe, scaling=ALONE | scaling), data)
    stopped = small(tmp_path / "stopped", recipe, scaling=ALONE | scaling)
    with pytest.raises(ConnectionError):
        train(Dying(stopped, data[1], 0, 1, CPU))
    saved = CheckpointStore(f"{stopped.storage_path}/{stopped.name}", 1)
    while not saved.names():  # a thread writes it
        time.sleep(0.01)
    assert int(saved.names()[-1][5:]) <= 18, "inside the first epoch; which step depends on the machine's pace"
    resumed = trained(stopped, data)
    assert resumed.progress.rows[-1].train_loss == expected.progress.rows[-1].train_loss
    assert same(resumed, expected)


@NO_ARCFACE
@pytest.mark.parametrize("ema", [None, 0.9])
def test_embeddings_are_trained_by_angles_and_the_network_is_one_like_any_other(
    ema: float | None, data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    """The digits come apart, and the plain network's best class is that of the cosine."""
    recipe = {"loss": {"kind": "arcface", "margin": 0.2, "scale": 16}, "ema": ema}
    found = trained(small(tmp_path, recipe, scaling=ALONE), data)
    losses = [row.train_loss for row in found.progress.rows]
    assert losses[-1] < losses[0]
    weight = found.model["fc.weight"]
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(10))
    assert not found.model["fc.bias"].any()
    assert "fc.bias" not in found.optimizer
    network, images = found.network(), torch.randn(32, 3, 8, 8)
    with torch.inference_mode():
        cosines = torch.nn.functional.normalize(network.embed(images)) @ weight.T
        assert torch.equal(network(images).argmax(1), cosines.argmax(1))


class Judged(RankData):
    """A task whose validation labels are false from an epoch on, so that errors rise."""

    epoch = 0

    def training(self, epoch: int, first_step: int) -> Iterator[Batch | Draws]:
        self.epoch = epoch
        return super().training(epoch, first_step)

    def evaluation(self, split: Any = "val") -> Iterator[Batch]:
        for batch in super().evaluation(split):
            yield batch._replace(labels=(batch.labels + 1) % 10) if self.epoch >= 2 else batch


def test_a_training_ends_by_patience_with_the_network_of_its_best_epoch(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    """After two epochs nothing gets better: two more, and the second's network is what is saved last and tested."""
    recipe = {"steps": 22 * 8, "selection": {"by": "val_loss", "patience": 2}, "ema": 0.9}
    run = small(tmp_path, recipe, checkpoints={"every_epochs": 3, "every_minutes": None})
    feed = data[1]
    train(Judged(run, feed, 0, 1, CPU))
    store = CheckpointStore.of(run)
    assert store.names() == ["step-00000044", "step-00000088"], "the best, and the last"
    best, last = store.read("step-00000044"), store.read("step-00000088")
    assert [row.epoch for row in last.progress.rows] == [0, 1, 2, 3]
    assert all(torch.equal(best.model[name], tensor) for name, tensor in last.model.items())
    tested = json.loads(Path(run.folder, "final_test.json").read_text())
    assert tested["top1_error"] > 50, "by labels that are false now"
    Path(run.folder, "final_test.json").unlink()
    train(RankData(run, feed, 0, 1, CPU))  # a start after the end tests it once more, and trains nothing
    assert store.names() == ["step-00000044", "step-00000088"]
    tested = json.loads(Path(run.folder, "final_test.json").read_text())
    assert tested["top1_error"] == pytest.approx(best.progress.rows[-1].top1_error, abs=0.6)


def test_a_fine_tuned_run_goes_on_bit_for_bit_and_keeps_what_is_frozen(
    data: tuple[RunData, WorkerData], untrained: Any, tmp_path: Path
) -> None:
    """Stopped right after the start it needs the weights no more: the checkpoint of step 0 has them."""
    source = data[0]
    (init,) = untrained(0).glob("step-*")
    feed = replace(data[1], class_counts=tuple(class_counts(source.train, 10).tolist()))
    recipe = {"finetune": {"frozen": "layer1", "head_lr": 10, "head": "new"}, "loss": {"class_weights": True}}
    recipe |= {"ema": 0.9, "bn_batch": 16}

    def begun(place: str) -> Run:
        run = identified(small(tmp_path / place, recipe, init=str(init)))
        assert source.begin(run) == "the classifier is new: 10 classes of the weights, 10 of the data"
        assert source.begin(run) is None, "it has begun"
        return run

    whole = begun("whole")
    first = CheckpointStore.of(whole).read("step-00000000").model
    expected = trained(whole, (source, feed))
    stopped = begun("stopped")
    with pytest.raises(ConnectionError):
        train(Dying(stopped, feed, 0, 1, CPU))
    while CheckpointStore.of(stopped).names()[-1] == "step-00000000":  # a thread writes the next
        time.sleep(0.01)
    assert same(trained(stopped, (source, feed)), expected)
    frozen = [n for n in expected.model if n.startswith(("conv1.", "bn1.", "layer1."))]
    assert frozen
    assert all(torch.equal(expected.model[name], first[name]) for name in frozen)
    assert not torch.equal(expected.model["layer2.0.conv1.weight"], first["layer2.0.conv1.weight"])
    assert expected.run["init_sha256"] == whole.init_sha256
    with pytest.raises(ValueError, match="init_sha256 must be"):
        RunFolder(whole.model_copy(update={"init_sha256": "0" * 64}), source.sha256).check()
