"""Ctrl-C in a running training, by a real process: the state is saved, and the same command goes on from there."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines import stop_signals
from pipelines.progress import postings
from pipelines.progress.status import Status
from pipelines.tracking import mlflow_runs
from pipelines.training.guards.save_on_stop import saving_first
from resnet.training.checkpoint import load_checkpoint
from tests.pipelines.training.test_fit import wait_for

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on_from_there(ray_local: Any, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "jobs" / "train_imagenet.py"), "cifar10-resnet8", "--recipe.epochs", "30"]
    command += ["--scaling.workers", "1", "--scaling.threads", "1", "--no-promote", "--storage", str(tmp_path)]
    environment = {**os.environ, "RAY_ADDRESS": ray_local.address_info["gcs_address"]}
    pipe, folder = subprocess.PIPE, tmp_path / "cifar10-resnet8-A.s0"
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
    wait_for(lambda: any(folder.glob("step-*/progress.json")), process)
    process.send_signal(signal.SIGINT)
    out, told = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, ""), told
    said = re.search(r"^train_imagenet.py: cifar10-resnet8-A.s0 was stopped and saved at step (\d+) of 660; the same "
                     r"command goes on from there$", told, re.MULTILINE)  # fmt: skip
    assert said, told
    assert "Traceback" not in told
    step = int(said[1])
    newest = load_checkpoint(max(folder.glob("step-????????"))).progress.step
    assert newest >= step, "steps that it made until it was ended may be saved too"
    assert not list(folder.glob("holder-*")), "the folder is free"
    api = mlflow_runs.client()
    found = mlflow_runs.find_run(api, mlflow_runs.experiment(api), str(folder))
    assert found is not None
    assert found.info.status == "KILLED"

    shorter = [*command, "--recipe.epochs", "29"]
    refused = subprocess.run(shorter, env=environment, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    again = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=pipe, text=True)
    wait_for(lambda: list(folder.glob("holder-*")), again)
    second = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (second.returncode, second.stdout) == (2, "")
    assert f"{folder} is held by process {again.pid} on " in second.stderr
    assert len(second.stderr.splitlines()) == 1
    wait_for(lambda: any(int(path.name[5:]) > newest for path in folder.glob("step-????????")), again)
    again.send_signal(signal.SIGTERM)
    _, told = again.communicate(timeout=120)
    assert again.returncode == 130, told
    goes_on = re.search(r"stopped and saved at step (\d+) of 660", told)
    assert goes_on, told
    assert int(goes_on[1]) > newest
    assert len(api.search_runs([found.info.experiment_id], mlflow_runs.mlflow_store.key_filter(str(folder)))) == 1


def status(run: str, step: int, saved: str | None, answers: int = 0) -> Status:
    figures: dict[str, Any] = dict.fromkeys(("epoch", "epochs", "loss", "error", "images_per_second"), 1.0)
    fields = {"phase": "training", "total": 10, "seconds_left": 1.0, "saved": saved, "answers": answers}
    return Status(run=run, step=step, **fields, **figures)


def stopped(runs: list[str]) -> tuple[str, float]:
    """What a process says that gets SIGTERM while these run, and seconds until it does."""
    began = time.monotonic()

    def training() -> None:
        with saving_first(lambda: runs):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt) as caught:
        training()
    return str(caught.value), time.monotonic() - began


def test_runs_are_asked_and_waited_for(ray_local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signals, "OTHERS_PATIENCE", 60.0)
    postings.post(status("stopping", 5, "step-00000001"))
    postings.post(status("finished", 10, "step-00000010"))
    before = signal.getsignal(signal.SIGTERM)

    def worker() -> None:
        while not postings.save_is_wanted("stopping"):
            time.sleep(0.02)
        postings.post(status("stopping", 6, "step-00000006", answers=1))

    answering = threading.Thread(target=worker)
    answering.start()
    told, seconds = stopped(["stopping", "finished", "never begun"])
    answering.join()
    assert seconds < 30, "the others have nothing to save"
    assert told == "stopped, 1 of 3 trainings in progress are saved where they were; the same command goes on"
    assert not postings.save_is_wanted("finished")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_run_that_does_not_answer_is_not_waited_for_long(ray_local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_signals, "OTHERS_PATIENCE", 0.3)
    postings.post(status("silent", 5, "step-00000003"))
    told, seconds = stopped(["silent"])
    assert seconds >= 0.3
    where = "stopped at step 5, the last saved state is that of step 3; the same command goes on from there"
    assert told == f"silent was {where}"
    postings.post(status("silent", 5, None))
    assert "before a state was saved; the same command goes on from the start" in stopped(["silent"])[0]
    assert postings.save_is_wanted("silent"), "it was asked"
