"""Steps are replayed only where a trial shows that they are the same; what is wrong is seen, said and passed over.

Without a GPU the graph is a closure over the same memory; the engine around it is the one that a GPU has.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.run import Run
from pipelines.stream.augmentation import Batch
from pipelines.stream.in_memory import Draws
from pipelines.training.guards import step_capture
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData
from pipelines.training.worker_loop import train
from resnet.training.checkpoint import Checkpoint, Progress, load_checkpoint
from resnet.training.step import choose_algorithms
from tests.pipelines.training.digits_run import CPU, STEPS, same, small, trained
from tests.resnet.training.devices.recorded_graphs import Failing, Forgetful, Recorded, Stale

pytestmark = pytest.mark.usefixtures("one_rank")
Data = tuple[RunData, WorkerData]
Make = Callable[[Learner], Recorded]
RECIPE: dict[str, Any] = {"ema": 0.9, "bn_batch": 16}
LITTLE: dict[str, Any] = {"ema": 0.9, "bn_batch": 8, "optim": {"batch_size": 16}}


class OnDevice(RankData):
    """A task whose training set lies on its device, which is the CPU here."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.crops_on_device = True


class Dying(OnDevice):
    """Its data end in the middle of the first epoch, after a checkpoint."""

    def training(self, epoch: int, first_step: int) -> Iterator[Batch | Draws]:
        yield from itertools.islice(super().training(epoch, first_step), 18)
        raise ConnectionError("the data are gone")


def learner_of(run: Run, data: Data, device: torch.device = CPU) -> Learner:
    return Learner(OnDevice(run, data[1], 0, 1, device), None)


def advance(learner: Learner, count: int) -> list[torch.Tensor]:
    """Sums of some steps as the worker loop makes them, of which the first and the fourth are looked at."""
    found = []
    for step, batch in enumerate(itertools.islice(learner.task.training(0, 0), count)):
        look = (lambda network, scale: None) if step % 3 == 0 else None
        found.append(learner.advance(batch, 0, step, 0.05 / (1 + step), look))
    return found


def captured(learner: Learner, graph: Recorded, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr(step_capture, "CudaGraph", lambda device: graph)
    learner.capture()
    return graph


def momentum(learner: Learner) -> list[torch.Tensor]:
    return [state["momentum_buffer"] for state in learner.optimizer.state.values()]


def average(learner: Learner) -> list[torch.Tensor]:
    assert learner.average is not None
    return list(learner.average.tensors.values())


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        RECIPE,
        {"optim": {"batch_size": 16, "momentum": 0.0}},
        {"optim": {"batch_size": 16, "nesterov": True, "decay_norm_and_bias": False}},
        LITTLE | {"precision": "bfloat16"},
    ],
    ids=str,
)
def test_replayed_steps_train_as_uncaptured_ones_bit_for_bit(
    recipe: dict[str, Any], data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small(tmp_path, recipe)
    plain, replayed = learner_of(run, data), learner_of(run, data)
    graph = captured(replayed, Recorded(), monkeypatch)
    assert replayed.replayed is not None
    tried = graph.replays
    assert tried == len(step_capture.TRIAL)
    for ours, theirs in zip(advance(replayed, 6), advance(plain, 6), strict=True):
        assert torch.equal(ours, theirs)
    assert graph.replays == tried + 4, "all but the two that were looked at"
    for kind, expected in zip(replayed.tensors(), plain.tensors(), strict=True):
        assert kind.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in kind.items())


WRONG: dict[str, Make] = {
    "lr of the first step": lambda learner: Stale(lambda step: step.lrs),
    "batch of the first step": lambda learner: Stale(lambda step: [step.draws]),
    "share of the first step": lambda learner: Stale(lambda step: [step.share]),
    "batch norm's statistics": lambda learner: Forgetful(lambda step: list(learner.network.buffers())),
    "one batch norm's mean": lambda learner: Forgetful(
        lambda step: [learner.network.get_buffer("layer2.0.bn1.running_mean")]
    ),
    "a counter": lambda learner: Forgetful(lambda step: [learner.network.get_buffer("bn1.num_batches_tracked")]),
    "momentum": lambda learner: Forgetful(lambda step: momentum(learner)),
    "one layer's momentum": lambda learner: Forgetful(lambda step: momentum(learner)[3:4]),
    "weights": lambda learner: Forgetful(lambda step: list(learner.network.parameters())),
    "average": lambda learner: Forgetful(lambda step: average(learner)),
    "sums": lambda learner: Forgetful(lambda step: [step.sums]),
    "cannot be recorded": lambda learner: Failing(),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_replay_is_found_and_passed_over_from_the_untouched_state(
    wrong: str, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = small(tmp_path, LITTLE)
    plain, learner = learner_of(run, data), learner_of(run, data)
    captured(learner, WRONG[wrong](learner), monkeypatch)
    assert learner.replayed is None
    (said,) = [record for record in caplog.records if record.name == step_capture.__name__]
    assert said.levelno == logging.WARNING
    assert said.getMessage().startswith("the steps are not captured: ")
    assert "\n" not in said.getMessage()
    assert not learner.optimizer.state
    assert all(parameter.grad is None for parameter in learner.network.parameters())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(advance(learner, 4), advance(plain, 4), strict=True))
    for kind, expected in zip(learner.tensors(), plain.tensors(), strict=True):
        assert kind.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in kind.items())


def test_a_training_that_goes_on_keeps_its_momentum_where_a_replay_is_wrong(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small(tmp_path, RECIPE)
    first = learner_of(run, data)
    advance(first, 3)
    progress = Progress(step=3, total_steps=STEPS, examples=360, classes=first.task.feed.classes)
    saved = Checkpoint(*first.tensors(), {}, {}, progress)
    second = Learner(OnDevice(run, data[1], 0, 1, CPU), saved)
    captured(second, Failing(), monkeypatch)
    for kind, expected in zip(second.tensors(), first.tensors(), strict=True):
        assert kind.keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in kind.items())


def test_a_capture_that_must_be_and_cannot_ends_the_run(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small(tmp_path, scaling={"workers": 1, "capture": "on"})
    with pytest.raises(ValueError, match=r"scaling\.capture must be auto or off here, got on: RuntimeError: CUDA err"):
        captured(learner_of(run, data), Failing(), monkeypatch)
    with pytest.raises(ValueError, match=r"scaling\.capture must be auto or off here, got on: the training set lies"):
        Learner(RankData(run, data[1], 0, 1, CPU), None).capture()
    both = small(tmp_path, {"bn_batch": 16}, scaling={"workers": "1:2", "capture": "on"})
    with pytest.raises(ValueError, match=r"got on: 2 workers train"):
        step_capture.replayed_steps(OnDevice(both, data[1], 0, 2, CPU), None)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("recipe", "scaling", "words"),
    [
        ({"loss": {"mixup": 0.2}}, {}, "images are mixed"),
        ({"precision": "float16"}, {}, "float16 has a loss scale"),
        ({}, {"workers": 2}, "2 workers train"),
    ],
)
def test_what_cannot_be_captured_is_refused_before_it_starts_and_with_auto_not_tried(
    recipe: dict[str, Any], scaling: dict[str, Any], words: str, data: Data, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"scaling\.capture must be auto or off where {words}, got on"):
        small(tmp_path, recipe, scaling={"workers": 1, "capture": "on"} | scaling)
    run = small(tmp_path, recipe, scaling={"workers": 1} | scaling)
    task = OnDevice(run, data[1], 0, run.scaling.most, CPU)
    assert task.uncaptured == words
    assert step_capture.replayed_steps(task, None) is None  # pyright: ignore[reportArgumentType]


def test_off_tries_nothing(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(small(tmp_path, scaling={"workers": 1, "capture": "off"}), data)
    assert captured(learner, Recorded(), monkeypatch).replays == 0
    assert learner.replayed is None


def test_a_captured_run_is_the_uncaptured_one_and_goes_on_bit_for_bit_where_it_was_stopped(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole loop, with evaluations, steps that are looked at, and an average; its row says that it was captured."""
    graphs: list[Recorded] = []
    monkeypatch.setattr(step_capture, "CudaGraph", lambda device: graphs.append(Recorded()) or graphs[-1])
    expected = trained(small(tmp_path / "off", RECIPE, scaling={"workers": 1, "capture": "off"}), data)
    assert graphs == []
    stopped = small(tmp_path / "stopped", RECIPE)
    with pytest.raises(ConnectionError):
        train(Dying(stopped, data[1], 0, 1, CPU))
    saved = CheckpointStore(f"{stopped.storage_path}/{stopped.name}", 1)
    while not saved.names():  # a thread writes it
        time.sleep(0.01)
    train(OnDevice(stopped, data[1], 0, 1, CPU))
    found = load_checkpoint(f"{stopped.storage_path}/{stopped.name}/step-{STEPS:08d}")
    assert same(found, expected)
    assert [row.train_loss for row in found.progress.rows] == [row.train_loss for row in expected.progress.rows]
    assert len(graphs) == 2, "one at each start"
    assert graphs[0].replays == len(step_capture.TRIAL) + 17, "18 steps, of which the first is looked at"
    assert [c.captured for c in found.progress.conditions] == [True]
    assert [c.captured for c in expected.progress.conditions] == [False]


@pytest.mark.gpu
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("recipe", [{"precision": "float32"}, RECIPE | {"precision": "bfloat16"}], ids=str)
def test_cuda_graphs_train_as_uncaptured_steps(
    recipe: dict[str, Any], deterministic: bool, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device, scaling = torch.device("cuda"), {"workers": 1, "deterministic": deterministic}
    learners = []
    for choice in ("off", "on"):
        run = small(tmp_path, recipe, scaling=scaling | {"capture": choice})
        learners.append(Learner(RankData(run, data[1], 0, 1, device), None))
        learners[-1].capture()
    plain, replayed = learners
    assert plain.replayed is None
    assert replayed.replayed is not None
    apart = 0.0 if deterministic else 0.05
    for ours, theirs in zip(advance(replayed, 20), advance(plain, 20), strict=True):
        torch.testing.assert_close(ours[0], theirs[0], rtol=apart, atol=apart)
    for kind, expected in zip(replayed.tensors(), plain.tensors(), strict=True):
        for name, tensor in kind.items():
            torch.testing.assert_close(tensor, expected[name], rtol=apart, atol=apart)
    choose_algorithms(deterministic=False)
