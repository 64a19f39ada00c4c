"""A run that is told to stop lets its workers save first."""

import os
import signal
import threading
import time
from typing import Any

import pytest

from pipelines.progress import postings
from pipelines.progress.status import Status
from pipelines.training import ray_trainer
from pipelines.training.ray_trainer import saving_first

pytestmark = pytest.mark.usefixtures("ray_local")


def status(run: str, step: int, saved: str | None) -> Status:
    figures: dict[str, Any] = dict.fromkeys(
        ("epoch", "epochs", "loss", "error", "images_per_second", "seconds_left"), 1.0
    )
    return Status(run=run, phase="training", step=step, total=10, saved=saved, **figures)


def stopped(runs: list[str]) -> float:
    """Seconds until a process that is told to stop ends like Ctrl-C."""
    began = time.monotonic()

    def training() -> None:
        with saving_first(runs):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        training()
    return time.monotonic() - began


def test_workers_are_asked_to_save_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_trainer, "SAVING", 60.0)
    postings.post(status("stopping", 5, "step-1"))
    postings.post(status("finished", 10, "step-10"))
    before = signal.getsignal(signal.SIGTERM)

    def worker() -> None:
        while not postings.save_is_wanted("stopping"):
            time.sleep(0.02)
        postings.post(status("stopping", 6, "step-6"))

    answering = threading.Thread(target=worker)
    answering.start()
    assert stopped(["stopping", "finished", "never begun"]) < 30, "the others have nothing to save"
    answering.join()
    assert not postings.save_is_wanted("finished")
    assert signal.getsignal(signal.SIGTERM) == before


def test_workers_that_do_not_answer_are_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_trainer, "SAVING", 0.3)
    postings.post(status("silent", 5, None))
    assert stopped(["silent"]) >= 0.3
    assert postings.save_is_wanted("silent"), "it was asked"


def test_beside_the_main_thread_signals_stay_as_they_are() -> None:
    seen = []

    def inside() -> None:
        with saving_first(["x"]):
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
