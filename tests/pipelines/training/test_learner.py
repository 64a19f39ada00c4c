"""The engine's knobs, each by what it does to a trained tensor: one rank in this process, real data, no Ray Train."""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from torch import distributed
from torch.nn import functional as F

from benchmarks.training import cifar
from benchmarks.training.lane import Lane
from benchmarks.training.resident import Resident
from benchmarks.training.stepper import Options
from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.models.initial_weights import identified
from pipelines.run import Run, standard
from pipelines.stream.augmentation import Batch
from pipelines.training.learner import Learner
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData, class_counts, load_feed, open_source
from pipelines.training.run_folder import RunFolder
from pipelines.training.worker_loop import train
from resnet import build
from resnet.training.checkpoint import Checkpoint, Progress, load_checkpoint
from resnet.training.weight_average import Average, decay_at

CPU = torch.device("cpu")
STEPS = 24


@pytest.fixture(scope="module", autouse=True)
def _one_rank(ray_local: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads beyond the free cores spin
    store = f"file://{tmp_path_factory.mktemp('group')}/store"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data() -> tuple[RunData, WorkerData]:
    """The digits, decoded once."""
    run = small(Path("/unused"))
    source = open_source(run)
    return source, load_feed(run, source)


def small(storage: Path, recipe: dict[str, Any] | None = None, **changes: Any) -> Run:
    """ResNet-8 on the digits for 24 steps, two more than an epoch holds; saved after 16, 22 and 24."""
    run = standard("cifar10-resnet8", data_is_given=False)
    wanted = run.recipe.model_dump() | {"epochs": None, "steps": STEPS, "precision": "float32", "bn_batch": None}
    fields = {"scaling": {"workers": 1}, "storage": str(storage)} | changes
    checkpoints = {"every_steps": 1, "keep": 9}
    return Run(**(run.model_dump() | {"recipe": wanted | (recipe or {}), "checkpoints": checkpoints} | fields))


def trained(run: Run, data: tuple[RunData, WorkerData]) -> Checkpoint:
    """The last checkpoint of a run that is trained here."""
    source, feed = data
    RunFolder(run, source.sha256).claim()
    train(RankData(run, feed, 0, 1, CPU))
    return load_checkpoint(f"{run.storage_path}/{run.name}/step-{STEPS:08d}")


def same(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether weights, momentum and all else are equal to the last bit."""
    pairs = ((a.model, b.model), (a.optimizer, b.optimizer))
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)


GENTLE = {"kind": "step", "milestones": (0.5,), "gamma": 0.1, "gentle_lr": 1e-4, "gentle_error": 80}
KNOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "averaged weights": ({"ema": 0.9}, {}),
    "passes of 16 images": ({"bn_batch": 16}, {}),
    "mixed images": ({"loss": {"mixup": 0.2, "cutmix": 1.0}}, {}),
    "last batch norms at zero": ({"zero_init_last_bn": True}, {}),
    "bfloat16": ({"precision": "bfloat16"}, {}),
    "float16": ({"precision": "float16"}, {}),
}
ALONE = {"workers": 1}
EVERYTHING = {"ema": 0.9, "loss": {"mixup": 0.2, "cutmix": 1.0}, "bn_examples": 512, "schedule": GENTLE}


@pytest.mark.parametrize("knob", KNOBS)
def test_a_knob_changes_the_network_that_is_saved(knob: str, data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    recipe, scaling = KNOBS[knob]
    saved = []
    for run in (small(tmp_path), small(tmp_path, recipe, scaling=ALONE | scaling)):
        task = RankData(run, data[1], 0, 1, CPU)
        learner = Learner(task, None)
        learner.step(*task.tensors(next(task.training(0, 0))), 0, 0, 0.1)
        saved.append(learner.tensors()[0]["conv1.weight"])
    assert not torch.equal(*saved)
    torch.testing.assert_close(saved[0], saved[1], rtol=0, atol=0.05)


class Dying(RankData):
    """A task whose data end in the middle of the first epoch, after a checkpoint."""

    def training(self, epoch: int, first_step: int) -> Iterator[Batch]:
        yield from itertools.islice(super().training(epoch, first_step), 18)
        raise ConnectionError("the data are gone")


@pytest.mark.parametrize(("recipe", "scaling"), [({"precision": "auto"}, {}), (EVERYTHING | {"bn_batch": 16}, {})])
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
    assert saved.names() == ["step-00000016"]
    resumed = trained(stopped, data)
    assert resumed.progress.rows[-1].train_loss == expected.progress.rows[-1].train_loss
    assert same(resumed, expected)


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
        RunFolder(whole.model_copy(update={"init_sha256": "0" * 64}), source.sha256).claim()


class Judged(RankData):
    """A task whose validation labels are false from an epoch on, so that errors rise."""

    epoch = 0

    def training(self, epoch: int, first_step: int) -> Iterator[Batch]:
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
    source, feed = data
    RunFolder(run, source.sha256).claim()
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
        by_hand.update(learner.network, decay_at(step, 0.9))
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
    run = small(tmp_path, scaling=ALONE | {"channels_last": channels_last})
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


def test_a_worker_alone_computes_what_it_would_inside_ddp(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    task = RankData(small(tmp_path, scaling={"workers": "1:4"}), data[1], 0, 1, CPU)
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


def test_never_refuses_where_checkpoints_are(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    run = small(tmp_path, resume="never")
    RunFolder(run, "data").claim()
    assert RunFolder(run, "data").claim() is None, "nothing was trained yet"
    train(RankData(run, data[1], 0, 1, CPU))
    with pytest.raises(ValueError, match=r"resume must be auto where .* holds step-00000024, got never"):
        RunFolder(run, "data").claim()


def test_a_run_begins_only_from_its_own_network_and_only_from_one_place(
    data: tuple[RunData, WorkerData], tmp_path: Path
) -> None:
    run = small(tmp_path / "first")
    expected, sha = trained(run, data), data[0].sha256
    start = f"{run.storage_path}/{run.name}/step-00000022"
    with pytest.raises(ValueError, match="resume must be a checkpoint of cifar10-plain8, got one of cifar10-resnet8-A"):
        RunFolder(small(tmp_path / "other", {"network": "cifar10-plain8"}, resume=start), sha).claim()
    again = small(tmp_path / "again", resume=start)
    assert same(trained(again, data), expected), "the rest of the same run"
    assert RunFolder(again, sha).claim() is None
    assert RunFolder(again.model_copy(update={"resume": "auto"}), sha).claim() is None
    with pytest.raises(ValueError, match=r"resume must be .*step-00000022 as in the run that .*, got .*step-00000024"):
        RunFolder(again.model_copy(update={"resume": start.replace("22", "24")}), sha).claim()


def test_a_holdout_cuts_the_training_images_in_two(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    """The same images as the whole split has, none in both; the cut may lie inside a row group."""
    whole = data[0].train
    source = open_source(small(tmp_path, data={"holdout": 300}))
    assert (source.train.examples, source.val.examples) == (1137, 300)
    assert source.sha256 != data[0].sha256
    keys = [
        [k for g in range(len(s.rows)) for k in s.read(g, ("key",))["key"]] for s in (whole, source.train, source.val)
    ]
    assert keys[1] + keys[2] == keys[0]
    assert whole.parted(128)[1].examples == 128
