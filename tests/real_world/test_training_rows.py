"""What ended trainings of real users wrongly, each with its right outcome; the numbers are rows of the list of faults.

Cheap ones run here, in this process or in small ones of their own. The others: tests/pipelines/training/guards (39 and
41 in a running training), benchmarks/reliability/endings.py (38, 39, 49 and a sweep whose Ray dies, by real jobs).
A test whose name has no number is a sibling: the same kind of mistake, which users of other trainers report.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from jobs import evaluate_model, predict_images, search_recipe, sweep_paper, train_imagenet, write_report
from pipelines.command_line import explained, parse_run
from pipelines.file_names import below, require_lasting
from pipelines.models.checkpoint_store import CheckpointStore
from pipelines.run import Run, standard
from pipelines.storage import Folder
from pipelines.training import run_summary
from pipelines.training.guards.run_holder import RunHolder
from pipelines.training.guards.starting_point import require_start
from pipelines.training.run_data import open_source
from pipelines.training.run_folder import RunFolder
from resnet import build
from resnet.training.checkpoint import Checkpoint, EpochRow, Progress, save_checkpoint
from resnet.training.checkpoint_tensors import restore_state
from resnet.training.optimizer import optimizer
from tests.s3_server import options_of, s3_server

ROOT = Path(__file__).resolve().parents[2]


def digits(**changes: Any) -> Run:
    return Run(**(standard("cifar10-resnet8", data_is_given=False).model_dump() | changes))


def row(epoch: int = 0) -> EpochRow:
    figures = dict.fromkeys(EpochRow.model_fields, 0.0) | {"epoch": epoch, "step": 22 * epoch + 22, "lr": 0.1}
    figures |= {"train_error": 40.0, "top1_error": 50.0}
    figures.pop("class_error", None)
    return EpochRow(**figures)  # pyright: ignore[reportArgumentType]


def checkpoint(run: Run, epochs: int) -> Checkpoint:
    """One of the digits' classes at the end of an epoch, with weights as they are made."""
    rows = tuple(row(i) for i in range(epochs))
    classes = open_source(run).manifest.classes
    progress = Progress(step=22 * epochs, total_steps=264, examples=360, classes=classes, rows=rows)
    network, one = build(run.recipe.network, 10), torch.ones(3, 1, 1)
    momentum = {name: torch.ones_like(parameter) for name, parameter in network.named_parameters()}
    pixels = {"mean": one, "std": one.clone()}
    return Checkpoint(dict(network.state_dict()), momentum, pixels, run.model_dump(mode="json"), progress)


def said(act: Any, *arguments: Any) -> str:
    """The sentence by which something is refused."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        act(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "words", "sentence"),
    [
        (sweep_paper, ["table6", "--seed", "5"], "--seed has no effect here: --seeds gives them"),
        (sweep_paper, ["table6", "--recipe.network", "cifar10-plain20"], "--recipe.network has no effect here: --netw"),
        (sweep_paper, ["table6", "--promote"], "--promote has no effect here: no training here registers a model"),
        (sweep_paper, ["table6", "--grace", "2"], "grace has an effect with scheduler asha only, got 2 with none"),
        (sweep_paper, ["table6", "--resume", "/x/step-00000022"], "resume must be auto or never for many trainings"),
        (search_recipe, ["cifar10-resnet8", "--recipe.optim.lr", "1"], "--recipe.optim.lr has no effect here: --lr"),
        (search_recipe, ["cifar10-resnet8", "--points", "5"], "points has no effect with sampler tpe, got 5"),
        (search_recipe, ["cifar10-resnet8", "--sampler", "grid", "--trials", "9"], "trials has no effect with sampler"),
    ],
)
def test_36_what_a_sweep_or_a_search_decides_is_refused(job: Any, words: list[str], sentence: str) -> None:
    assert sentence in said(job.job, words)


@pytest.mark.parametrize("value", ["inf", "nan", "1e999"])
def test_42_an_infinite_lr_is_refused_before_anything_starts(value: str) -> None:
    assert "lr must be a finite number, got " in said(train_imagenet.job, ["--recipe.optim.lr", value])


# --- Where a training begins ------------------------------------------------------------------------------------------


def test_37_a_checkpoint_past_the_end_is_refused_by_the_job(tmp_path: Path) -> None:
    place = CheckpointStore(str(tmp_path), 1).write(checkpoint(digits(), 3))
    words = ["cifar10-resnet8", "--recipe.epochs", "3", "--storage", str(tmp_path / "new"), "--resume"]
    sentence = said(train_imagenet.job, [*words, str(tmp_path / place)])
    assert sentence.startswith("resume must be a checkpoint before the end of this training, step 66, got one of step")
    assert not (tmp_path / "new").exists()


def test_a_learning_rate_that_is_given_with_a_checkpoint_wins(tmp_path: Path) -> None:
    """pytorch/examples#816: the checkpoint's own took its place without a word."""
    place = CheckpointStore(str(tmp_path), 1).write(checkpoint(digits(), 3))
    words = ["--resume", str(tmp_path / place), "--recipe.optim.lr", "0.02", "--storage", str(tmp_path / "new")]
    run = parse_run(standard("cifar10-resnet8", data_is_given=False), words, None)
    require_start(run, open_source(run).manifest.classes, 1437)
    network = build(run.recipe.network, 10)
    trained = optimizer(network, run.recipe.optim)
    found = CheckpointStore(str(tmp_path), 1).read(place)
    restore_state(found.model, found.optimizer, network, trained)
    assert {group["lr"] for group in trained.param_groups} == {0.02}


def test_another_length_for_a_run_that_has_begun_is_refused(tmp_path: Path) -> None:
    """ultralytics/yolov3#626: the schedule of lr was another after it."""
    run = digits(storage=str(tmp_path))
    RunFolder(run, open_source(run).sha256).begin()
    sentence = said(train_imagenet.job, ["cifar10-resnet8", "--storage", str(tmp_path), "--recipe.epochs", "300"])
    assert sentence.startswith(f"recipe.epochs must be 12.0 as in the run that {run.folder} holds, got 300.0; ")


# --- The folder of a run ----------------------------------------------------------------------------------------------


def test_40_a_refused_command_leaves_the_folder_to_the_right_one(tmp_path: Path) -> None:
    words = ["cifar10-resnet8", "--storage", str(tmp_path)]
    said(train_imagenet.job, [*words, "--recipe.optim.lr", "-1"])
    said(train_imagenet.job, [*words, "--resume", "/nowhere/step-00000022", "--recipe.optim.lr", "7"])
    run = digits(storage=str(tmp_path))
    assert RunFolder(run, open_source(run).sha256).check() is None
    assert list(tmp_path.iterdir()) == []


def test_41_the_same_command_copied_with_other_workers_is_told_who_trains_there(tmp_path: Path) -> None:
    """meta-pytorch/torchtune#481: a copied command for another device overwrote the first one's checkpoints."""
    run = digits(storage=str(tmp_path))
    with RunHolder(Folder(run.folder), print).held():
        words = ["cifar10-resnet8", "--storage", str(tmp_path), "--scaling.workers", "2"]
        assert f"{run.folder} is held by process {os.getpid()} on " in said(train_imagenet.job, words)
    assert not Path(run.folder).exists()


def test_91_a_sweep_beside_a_running_training_is_told_who_trains(tmp_path: Path) -> None:
    run = digits(storage=str(tmp_path))
    with RunHolder(Folder(run.folder), print).held():
        words = ["figure1", "--networks", "cifar10-plain8", "cifar10-resnet8", "--seeds", "0"]
        assert f"{run.folder} is held by process" in said(sweep_paper.job, [*words, "--storage", str(tmp_path)])


@pytest.fixture
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on the loopback interface, by Arrow's options in the URI, as users of MinIO have it."""
    with s3_server("runs") as address:
        yield f"s3://runs?{options_of(address)}"


def test_a_storage_with_an_endpoint_in_its_options_holds_runs(bucket: str) -> None:
    """The way to name a server of one's own: the name of the run was put behind the options."""
    run = digits(storage=bucket)
    assert run.folder == below(bucket, "cifar10-resnet8-A.s0")
    place = RunFolder(run, "data")
    with RunHolder(place.folder, print).held():
        place.begin()
        store = CheckpointStore.of(run)
        name = store.write(checkpoint(digits(), 1))
        require_start(digits(resume=store.path(name)), open_source(digits()).manifest.classes, 1437)
    assert RunFolder(run, "data").check() is None
    assert sorted(entry.name for entry in place.folder.entries()) == ["asked.json", name]
    assert "endpoint_override" not in place.folder.shown


def test_a_kill_in_the_middle_of_a_save_leaves_the_last_whole_one(tmp_path: Path) -> None:
    """Lightning-AI/pytorch-lightning#688: a save was not atomic, and what a kill left of it was loaded."""
    code = (
        "import sys, torch; from resnet.training.checkpoint import *; "
        "t = {'w': torch.zeros(40_000_000)}; p = Progress(step=2, total_steps=9, examples=1, classes=()); "
        "save_checkpoint(sys.argv[1], Checkpoint(t, t, t, {}, p))"
    )
    save_checkpoint(tmp_path / "step-00000001", checkpoint(digits(), 1))
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "step-00000002")], cwd=ROOT)
    while not list(tmp_path.glob("*.part-*/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    store = CheckpointStore(str(tmp_path), 1)
    assert store.names() == ["step-00000001"]
    store.write(checkpoint(digits(), 3))
    assert store.names()[-1] == "step-00000066"
    assert not list(tmp_path.glob("*.part-*")), "what the kill left is gone"


# --- Ends -------------------------------------------------------------------------------------------------------------


def test_ctrl_c_that_is_held_down_ends_at_once() -> None:
    """Lightning-AI/pytorch-lightning#19976: pressed again and again it left processes behind."""
    code = (
        "import subprocess, sys, time; from pipelines import command_line, stop_signals\n"
        "def job(argv):\n"
        "    child = subprocess.Popen(['sleep', '100']); stop_signals.before_ending_at_once(child.kill)\n"
        "    with stop_signals.stoppable(lambda patience: time.sleep(30)):\n"
        "        print(child.pid, file=sys.stderr, flush=True); time.sleep(30)\n"
        "command_line.run_job(job)"
    )
    words = [sys.executable, "-c", code]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    child, began = int(process.stderr.readline()), time.monotonic()
    while process.poll() is None and time.monotonic() - began < 10:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert process.returncode == 130
    assert time.monotonic() - began < 5
    os.set_blocking(process.stderr.fileno(), False)  # were the child alive it would hold the pipe
    assert process.stderr.read() == "ended at once\n"
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


# --- Places and errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("hf://user/model", "cannot open hf://user/model"),
        ("foo://bucket", "cannot open foo://bucket"),
        ("s3://runs?secret_key=HUSH", "s3://runs must be given without its secret_key"),
        ("s3://KEY:HUSH@runs", "s3://runs must be given without its password"),
        ("abfs://runs@account.dfs.core.windows.net?sig=HUSH", "must be given without its sig"),
        ("FILE/below", "storage must be a folder or bucket that can be written, got "),
    ],
)
def test_42_a_storage_that_cannot_be_is_one_sentence(storage: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("")
    place = storage.replace("FILE", str(tmp_path / "FILE"))
    sentence = said(train_imagenet.job, ["cifar10-resnet8", "--storage", place])
    assert words in sentence
    assert "HUSH" not in sentence


def test_42_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    store = CheckpointStore(str(tmp_path / "run"), 1)
    damaged = tmp_path / "run" / store.write(checkpoint(digits(), 1))
    (damaged / "model.safetensors").write_bytes(b"torn")
    for job, words in (
        (train_imagenet, ["cifar10-resnet8", "--storage", str(tmp_path / "new"), "--resume", str(damaged)]),
        (evaluate_model, [str(damaged)]),
        (predict_images, [str(damaged), "--images", str(tmp_path), "--out", str(tmp_path / "out")]),
    ):
        assert f"checkpoint {damaged} is damaged" in said(job.job, words)


def test_42_errors_of_libraries_say_where_they_came_through() -> None:
    for act, status, words in (
        (lambda: Folder("/proc/self").read("no such file"), 2, "No such file"),
        (lambda: build("cifar10-resnet8", 2).load_state_dict({}), 1, "Missing key(s)"),
        (lambda: json.loads("{"), 2, "Expecting property name"),
    ):
        found = None
        try:
            act()
        except Exception as error:  # of any library
            found = explained(error)
        assert found is not None
        assert found[0] == status
        assert words in found[1]
        assert "\n" not in found[1]
    assert explained(KeyError("a fault of the program")) is None


def test_a_relative_place_in_a_job_of_ray_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known of our own: what `ray job submit --working-dir .` runs in is a copy, removed with all that lies in it."""
    copy = tmp_path / "working_dir_files" / "_ray_pkg_0123456789abcdef"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert "must be an absolute path or a URI in a Ray job" in said(require_lasting, "predictions")
    for job, words in (
        (predict_images, ["resnet@champion", "--images", "photos", "--out", "predictions"]),
        (train_imagenet, ["--storage", "runs"]),
        (write_report, ["--out", "report"]),
    ):
        assert "must be an absolute path or a URI in a Ray job" in said(job.job, words)


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_43_one_epoch_is_a_point_beside_its_run(tmp_path: Path) -> None:
    for storage in ("one", "two"):
        drawn = run_summary.curves("cifar10-resnet8-A.s0", "cifar10-resnet8-A", [row()], tmp_path / "drawn")
        run_summary.keep_beside(Folder(str(tmp_path / storage / "run")), drawn)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/run/*"))
    assert files == [f"{storage}/run/curves.{kind}" for storage in ("one", "two") for kind in ("png", "svg")]
    with Image.open(tmp_path / "one" / "run" / "curves.png") as image:
        pixels = image.convert("RGB")
        # The point stands where training ends, in the middle of the error's range: left of all letters.
        places = [(x, y) for y in range(pixels.height) for x in range(pixels.width)]
        blue = [place[0] for place in places if pixels.getpixel(place) == (0, 114, 178)]
    assert len([x for x in blue if x == min(blue) + 3]) >= 3, "a dot that is some pixels wide"
