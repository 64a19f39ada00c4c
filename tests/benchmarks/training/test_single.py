"""The yardstick has the engine's examples, crops and numbers, and goes on bit for bit where it was stopped."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.training import cifar, single
from benchmarks.training.lane import Lane
from benchmarks.training.resident import Resident, plan
from benchmarks.training.stepper import Options, table
from pipelines.stream.example_order import Order
from resnet import build
from resnet.images.crops.padded_crops import pad_crop_flip
from resnet.paper.result_rows import read_results
from resnet.recipes.named import recipe
from resnet.recipes.recipe import Recipe
from resnet.training.checkpoint import load_checkpoint
from resnet.training.devices.resident_crops import mirrored_crops
from resnet.training.lr_schedule import lr_at
from resnet.training.optimizer import optimizer
from resnet.training.step import Normalize, eval_step, train_step

ROOT = Path(__file__).resolve().parents[3]
CPU = Options(torch.device("cpu"), precision="float32", evaluate_every=1)


def short(variant: str = "paper", **changes: object) -> Recipe:
    """ResNet-8 with batches of 32: 10 steps an epoch of 350 images."""
    base = recipe(f"cifar10-resnet8@{variant}")
    optim = {**base.optim.model_dump(), "batch_size": 32, "lr": 0.02}
    return Recipe(**{**base.model_dump(), "optim": optim, "bn_batch": None, "epochs": None, "steps": 15, **changes})


@pytest.fixture(scope="module")
def resident(tiny_cifar: Path) -> Resident:
    return Resident(cifar.read(str(tiny_cifar)), torch.device("cpu"))


def finish(lane: Lane) -> Lane:
    for _ in lane.train():
        pass
    return lane


def test_images_come_in_the_order_of_the_shards(tiny_cifar: Path, tmp_path: Path) -> None:
    from pipelines.preparation.prepare import write_shards
    from pipelines.preparation.sources import Source
    from pipelines.shards.row_groups import open_split
    from resnet.images.decode import decode

    write_shards(Source(kind="cifar10", path=str(tiny_cifar)), str(tmp_path / "shards"), workers=0)
    data = cifar.read(str(tiny_cifar))
    for name, split in (("train", data.train), ("val", data.val)):
        _, shards = open_split(str(tmp_path / "shards"), name)
        rows = [shards.read(group) for group in range(len(shards.rows))]
        assert shards.rows == split.rows
        assert [label for part in rows for label in part["label"]] == split.labels.tolist()
        stored = np.stack([decode(data) for part in rows for data in part["image"]])
        assert np.array_equal(stored, split.images)


def test_an_epoch_has_the_engines_batches(resident: Resident) -> None:
    from pipelines.stream.in_memory import Resident as Decoded
    from pipelines.stream.in_memory import resident_batches

    images, order = short().images, Order(resident.data.train.rows, 32, 16, 5)
    made = plan(order, images, 3)
    engine = resident_batches(Decoded(*resident.data.train[:2]), order, images, 3, 0, 0, 1)
    draws, steps = torch.from_numpy(table(made)), 0
    for step, batch in enumerate(engine):
        crops, labels = resident.crops(4).batch(draws[step])
        assert torch.equal(crops, torch.from_numpy(batch.images))
        assert torch.equal(labels, torch.from_numpy(batch.labels))
        assert made.image[step].tolist() == batch.ids.tolist()
        steps += 1
    assert steps == order.steps_per_epoch == len(made.image)


def test_crops_on_the_device_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    offsets, flips = rng.integers(0, 7, (6, 2)), rng.random(6) < 0.5
    padded = torch.nn.functional.pad(torch.from_numpy(images), (0, 0, 3, 3, 3, 3))
    parts = (torch.arange(6), torch.from_numpy(offsets[:, 0]), torch.from_numpy(offsets[:, 1]), torch.from_numpy(flips))
    assert np.array_equal(mirrored_crops(padded, *parts, 8).numpy(), pad_crop_flip(images, offsets, flips, 3))


def test_a_lane_gives_the_numbers_of_the_engines_loop_bit_for_bit(resident: Resident) -> None:
    """The loop of pipelines/training/worker_loop.py with one worker, but for DDP, which then adds up nothing."""
    from pipelines.stream.in_memory import Resident as Decoded
    from pipelines.stream.in_memory import resident_batches
    from resnet.images.pixel_statistics import pixel_statistics

    wanted, data = short(), resident.data
    lane = finish(Lane(wanted, 2, resident, CPU, None))
    torch.manual_seed(2)
    network = build(wanted.network, 10).to(memory_format=torch.channels_last)
    optim, order = optimizer(network, wanted.optim), Order(data.train.rows, 32, 16, 2)
    mean, std = pixel_statistics(data.train.images, True)
    normalize = Normalize(torch.from_numpy(mean), torch.from_numpy(std))
    step, curve = 0, []
    for epoch in range(2):
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in resident_batches(Decoded(*data.train[:2]), order, wanted.images, epoch, 0, 0, 1):
            for group in optim.param_groups:
                group["lr"] = lr_at(step, 15, wanted.optim, wanted.schedule)
            pixels, labels = normalize(torch.from_numpy(batch.images)), torch.from_numpy(batch.labels)
            sums += train_step(network, optim, pixels, labels)
            step += 1
            if step == 15:
                break
        network.eval()
        val = eval_step(network, normalize(torch.from_numpy(data.val.images)), torch.from_numpy(data.val.labels))
        network.train()
        curve.append((step, sums[0].item() / sums[2].item(), 100 * (val[1] / val[3]).item()))
    assert [(r.step, r.train_loss, r.top1_error) for r in lane.curve] == curve
    for name, tensor in lane.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name


@pytest.mark.parametrize("variant", ["paper", "fast"])
@pytest.mark.parametrize("stop", [4, 10, 15])
@pytest.mark.parametrize("killed", [False, True])
def test_gone_on_equals_never_stopped_bit_for_bit(
    resident: Resident, tmp_path: Path, variant: str, stop: int, killed: bool
) -> None:
    wanted = short(variant, bn_examples=64)
    whole = finish(Lane(wanted, 1, resident, CPU, None))
    first = Lane(wanted, 1, resident, replace(CPU, save_every=0.0 if killed else 60.0), tmp_path)
    for _ in first.train():
        if first.step == stop:
            break
    if not killed:
        first.stop()
    second = Lane(wanted, 1, resident, CPU, tmp_path)
    assert second.step == (stop - 1 if killed else stop), "a killed run has its last checkpoint"
    finish(second)
    assert second.curve == whole.curve
    for name, tensor in second.network.state_dict().items():
        assert torch.equal(tensor, whole.network.state_dict()[name]), name
    (kept,) = tmp_path.iterdir()
    saved = load_checkpoint(kept)
    assert saved.progress.step == 15
    assert all(torch.equal(t, whole.network.state_dict()[name]) for name, t in saved.model.items())
    assert Lane(wanted, 1, resident, CPU, tmp_path).curve == whole.curve


@pytest.mark.gpu
def test_graphs_give_the_numbers_of_eager_steps(tiny_cifar: Path) -> None:
    device = torch.device("cuda")
    wanted, data = short("fast"), Resident(cifar.read(str(tiny_cifar)), device)
    steppers = [Lane(wanted, 1, data, Options(device, "float32"), None).stepper for _ in range(2)]
    order = Lane(wanted, 1, data, Options(device, "float32"), None).order
    for stepper in steppers:
        stepper.load(plan(order, wanted.images, 0), [0.02] * 10, 0, 0)
    steppers[0].capture()
    assert steppers[0].captured is not None
    for stepper in steppers:
        for _ in range(10):
            stepper.enqueue()
    torch.cuda.synchronize()
    torch.testing.assert_close(steppers[0].sums, steppers[1].sums, rtol=1e-3, atol=1e-3)
    finish(Lane(wanted, 1, data, Options(device), None))


def test_another_recipe_in_the_same_place_is_refused(resident: Resident, tmp_path: Path) -> None:
    finish(Lane(short(steps=1), 1, resident, CPU, tmp_path))
    with pytest.raises(ValueError, match=r"recipe of .* must be as in the run that is there"):
        Lane(short(steps=2), 1, resident, CPU, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(resident: Resident, tmp_path: Path) -> None:
    from resnet.training.finite_loss import NotFinite

    lane = Lane(short(optim={"batch_size": 32, "lr": 1e30}), 1, resident, CPU, tmp_path)
    with pytest.raises(NotFinite, match=r"at step [1-9] with lr 1e"):
        finish(lane)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("imagenet-resnet18", [], "images.policy must be pad-crop"),
        ("cifar10-resnet8", ["loss.mixup=0.2"], "loss.mixup and loss.cutmix must be None"),
        ("cifar10-resnet8", ["loss.kind=arcface"], "loss.class_weights, loss.kind arcface, images.turns"),
        ("cifar10-resnet8", ["optim.rate=1"], "override must be FIELD=VALUE"),
        ("cifar10-resnet8", ["optim.lr=-1"], "optim.lr must be greater than 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(
    name: str, overrides: list[str], words: str, tiny_cifar: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    given = [name, "--data", str(tiny_cifar), "--out", str(tmp_path)] + (
        ["--override", *overrides] if overrides else []
    )
    assert single.main(given) == 2
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_trains_several_runs_without_ray_and_writes_rows(tiny_cifar: Path, tmp_path: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally: print(*{'ray', 'pyarrow', 'mlflow'} & set(sys.modules), file=sys.stderr)"
    )
    script = [sys.executable, "-c", code, str(ROOT / "benchmarks" / "training" / "single.py")]
    names = ["cifar10-resnet8", "cifar10-plain8", "--seeds", "0", "1", "--lanes", "3", "--threads", "1"]
    place = ["--data", str(tiny_cifar.parent), "--out", str(tmp_path), "--commit", "abc"]
    changed = ["--override", "optim.batch_size=64", "steps=3"]
    out = subprocess.run([*script, *names, *place, *changed], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stderr.splitlines()[-1] == "", "a module of the cluster was imported"
    answer = json.loads(out.stdout.splitlines()[-1])
    assert (len(answer["finished"]), answer["failed"], answer["unfinished"]) == (4, [], [])
    rows = read_results(tmp_path)
    assert sorted(r.name for r in rows) == sorted(f"cifar10-{n}.s{s}" for n in ("plain8", "resnet8-A") for s in (0, 1))
    assert {(r.engine, r.commit, r.steps, r.data.train, r.data.val) for r in rows} == {("single", "abc", 3, 350, 40)}
