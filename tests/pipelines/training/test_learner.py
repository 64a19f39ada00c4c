"""The engine's knobs, each by what it does to a trained tensor: one rank in this process, real data, no Ray Train."""

import importlib.util
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from torch.nn import functional as F

from benchmarks.training import cifar
from benchmarks.training.lane import Lane
from benchmarks.training.resident import Resident
from benchmarks.training.stepper import Options
from pipelines.training import learner as learner_module
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData
from resnet import build
from resnet.training.checkpoint import Checkpoint, Progress
from resnet.training.devices.compiled_blocks import compile_or_say
from resnet.training.weight_average import Average, decay_at
from tests.pipelines.training.digits_run import CPU, small, trained

pytestmark = pytest.mark.usefixtures("one_rank")


KNOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "averaged weights": ({"ema": 0.9}, {}),
    "passes of 16 images": ({"bn_batch": 16}, {}),
    "mixed images": ({"loss": {"mixup": 0.2, "cutmix": 1.0}}, {}),
    "last batch norms at zero": ({"zero_init_last_bn": True}, {}),
    "bfloat16": ({"precision": "bfloat16"}, {}),
    "float16": ({"precision": "float16"}, {}),
    "angles": ({"loss": {"kind": "arcface", "scale": 16}}, {}),
}
NO_ARCFACE = pytest.mark.skipif(
    not importlib.util.find_spec("pytorch_metric_learning"), reason="pytorch-metric-learning is missing: an older .venv"
)
KNOB_NAMES = [knob if knob != "angles" else pytest.param(knob, marks=NO_ARCFACE) for knob in KNOBS]


@pytest.mark.parametrize("knob", KNOB_NAMES)
def test_a_knob_changes_the_network_that_is_saved(knob: str, data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    recipe, scaling = KNOBS[knob]
    saved = []
    for run in (small(tmp_path), small(tmp_path, recipe, scaling={"workers": 1} | scaling)):
        task = RankData(run, data[1], 0, 1, CPU)
        learner = Learner(task, None)
        learner.step(*task.tensors(next(task.training(0, 0))), 0, 0, 0.1)
        saved.append(learner.tensors()[0]["conv1.weight"])
    assert not torch.equal(*saved)
    torch.testing.assert_close(saved[0], saved[1], rtol=0, atol=0.05)


def test_the_yardstick_without_ray_gives_the_same_network_bit_for_bit(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    """The lane of single.py: no DDP, crops made by torch on the device, the same order, draws and arithmetic."""
    run = small(tmp_path, {"ema": 0.9, "bn_examples": 256})
    expected = trained(run, data)
    source, feed = data
    assert feed.resident is not None
    arrays = {name: [part.copy() for part in ray.get(feed.resident[name])] for name in ("train", "val")}
    splits = {s.name: cifar.Split(arrays[s.name][0], arrays[s.name][1], s.rows) for s in (source.train, source.val)}
    resident = Resident(cifar.Cifar10(splits["train"], splits["val"], "digits"), CPU)
    lane = Lane(run.recipe, run.seed, resident, Options(CPU, precision="float32", evaluate_every=1), None)
    assert all(lane.train())
    for name, tensor in lane.network.state_dict().items():
        assert torch.equal(tensor, expected.model[name]), name
    rows = expected.progress.rows
    assert [(row.train_loss, row.top1_error) for row in lane.rows] == [(row.train_loss, row.top1_error) for row in rows]
    # The same images in batches of another size: the sum of their losses is rounded elsewhere.
    assert [row.val_loss for row in lane.rows] == pytest.approx([row.val_loss for row in rows], rel=1e-6)


def test_the_loss_scale_of_float16_is_part_of_a_checkpoint(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    run = small(tmp_path, recipe={"precision": "float16"})
    task = RankData(run, data[1], 0, 1, CPU)
    first = Learner(task, None)
    batch = next(task.training(0, 0))
    first.step(*task.tensors(batch), 0, 0, 0.1)
    model, rest = first.tensors()
    assert (rest["scaler.scale"], rest["scaler.growth_tracker"]) == (2.0**16, 1)
    progress = Progress(step=1, total_steps=task.total, examples=360, classes=task.feed.classes)
    second = Learner(task, Checkpoint(model, rest | {"scaler.scale": torch.tensor(2.0**9)}, {}, {}, progress))
    assert second.scaler.state_dict() | {"scale": 2.0**9, "_growth_tracker": 1} == second.scaler.state_dict()


def test_a_checkpoint_is_laid_out_before_it_is_handed_to_its_writer(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    # A writer that laid out weights would have threads of torch's own, and those of the training would wait for longer.
    learner = Learner(RankData(small(tmp_path), data[1], 0, 1, torch.device("cpu")), None)
    assert not all(w.is_contiguous() for w in learner.network.state_dict().values())  # channels_last
    learner.step(torch.randn(8, 3, 8, 8), torch.arange(8), 0, 0, 0.1)
    assert all(tensor.is_contiguous() for tensors in learner.tensors() for tensor in tensors.values())


def test_a_first_step_that_float16_skips_leaves_nothing_behind(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    task = RankData(small(tmp_path, recipe={"precision": "float16"}), data[1], 0, 1, CPU)
    learner = Learner(task, None)
    before = learner.network.get_parameter("conv1.weight").detach().clone()
    pixels, labels = task.tensors(next(task.training(0, 0)))
    learner.step(pixels * float("inf"), labels, 0, 0, 0.1)
    assert torch.equal(learner.network.get_parameter("conv1.weight"), before)
    assert all(not tensor.any() for name, tensor in learner.tensors()[1].items() if not name.startswith("scaler"))


def test_saved_and_evaluated_weights_are_the_average_of_all_steps(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    """By a plain loop over the same batches, which shares only the average with the engine."""
    run = small(tmp_path, {"ema": 0.9})
    task = RankData(run, data[1], 0, 1, CPU)
    learner = Learner(task, None)
    by_hand = Average(learner.network)
    for step, batch in zip(range(3), task.training(0, 0), strict=False):
        learner.step(*task.tensors(batch), 0, step, 0.05)
        by_hand.update(decay_at(step, 0.9))
    model, rest = learner.tensors()
    assert torch.equal(model["conv1.weight"], by_hand.tensors["conv1.weight"])
    assert torch.equal(rest["weights.conv1.weight"], learner.network.get_parameter("conv1.weight"))
    with learner.evaluated() as network:
        assert torch.equal(network.get_parameter("conv1.weight"), model["conv1.weight"])
    assert torch.equal(learner.network.get_parameter("conv1.weight"), rest["weights.conv1.weight"])


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_fused_optimiser_takes_the_step_of_the_paper(
    channels_last: bool, world_size: int, data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    """It trusts that gradients lie in memory as their parameters do, which DDP's buckets must not change."""
    run = small(tmp_path, scaling={"workers": 1, "channels_last": channels_last})
    task = RankData(run, data[1], 0, world_size, CPU)
    learner, expected = Learner(task, None), []
    parameters = [p for p in learner.network.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]

    def by_hand(*_: object) -> None:
        decayed = [w + p.grad.clone() / 1e-4 for w, p in zip(before, parameters, strict=True) if p.grad is not None]
        expected.extend(w - 0.1 * 1e-4 * g for w, g in zip(before, decayed, strict=True))

    learner.optimizer.register_step_pre_hook(by_hand)
    learner.step(*task.tensors(next(task.training(0, 0))), 0, 0, 0.1)
    assert all(p.is_contiguous(memory_format=torch.channels_last) == channels_last for p in parameters if p.ndim == 4)
    for parameter, wanted in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("recipe", [{}, pytest.param(KNOBS["angles"][0], marks=NO_ARCFACE)])
def test_a_worker_alone_computes_what_it_would_inside_ddp(
    recipe: dict[str, Any], data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    task = RankData(small(tmp_path, recipe, scaling={"workers": "1:4"}), data[1], 0, 1, CPU)
    alone, inside = Learner(task, None), Learner(task, None)
    inside.model = inside._distributed()
    batches = task.training(0, 0)
    for step in range(2):
        tensors = task.tensors(next(batches))
        for learner in (alone, inside):
            learner.step(*tensors, 0, step, 0.1)
    for name, tensor in alone.network.state_dict().items():
        assert torch.equal(tensor, inside.network.state_dict()[name]), name


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_step_of_a_batch_in_four_parts_is_the_same_at_any_number_of_workers(
    world_size: int, data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    """Ranks in turn in this process; DDP takes the mean of their gradients. Three workers have 2, 1 and 1 parts."""
    run = small(tmp_path, scaling={"workers": "1:4"})
    first = next(RankData(run, data[1], 0, 1, CPU).training(0, 0))
    gradients, ids = [], []
    for rank in range(world_size):
        task = RankData(run, data[1], rank, world_size, CPU)
        learner = Learner(task, None)
        parameters = list(learner.network.parameters())
        learner.optimizer.register_step_pre_hook(
            lambda *_, of=parameters: gradients.append([p.grad.clone() for p in of if p.grad is not None])
        )
        batch = next(task.training(0, 0))
        ids += batch.ids.tolist()
        learner.step(*task.tensors(batch), 0, 0, 0.1)
    assert ids == first.ids.tolist()
    reference = build(run.recipe.network, 10)
    torch.manual_seed(run.seed)
    reference = build(run.recipe.network, 10)
    pixels, labels = RankData(run, data[1], 0, 1, CPU).tensors(first)
    for x, y in zip(pixels.split(16), labels.split(16), strict=True):
        (F.cross_entropy(reference(x), y, label_smoothing=run.recipe.loss.label_smoothing) / 4).backward()
    for found, expected in zip(zip(*gradients, strict=True), reference.parameters(), strict=True):
        assert expected.grad is not None
        torch.testing.assert_close(sum(found) / world_size, expected.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own, which it hides by another filter
@pytest.mark.parametrize("works", [True, False])
def test_a_compiler_that_fails_is_one_line_in_the_log_and_the_run_is_as_one_without(
    works: bool,
    data: tuple[RunData, WorkerData],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        if not works:
            raise FileNotFoundError("no cc here")
        return graph.forward

    monkeypatch.setattr(learner_module, "compile_or_say", partial(compile_or_say, backend=backend))
    learners = []
    for choice in ("off", "on"):
        task = RankData(small(tmp_path, scaling={"workers": 1, "compile": choice}), data[1], 0, 1, CPU)
        learners.append(Learner(task, None))
        learners[-1].step(*task.tensors(next(task.training(0, 0))), 0, 0, 0.1)
    assert [learner.compiled for learner in learners] == [False, works]
    said = [record.getMessage() for record in caplog.records if record.name == learner_module.__name__]
    assert said == [] if works else len(said) == 1 and "no cc here" in said[0]
    off, on = (learner.tensors()[0] for learner in learners)
    assert all(torch.equal(off[name], tensor) for name, tensor in on.items())
