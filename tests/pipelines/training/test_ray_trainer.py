"""The call of Ray Train beside the main thread, which stays free to hear signals."""

import signal
import threading
import time
from typing import Any

import pytest

from pipelines.progress import postings
from pipelines.training import ray_trainer
from pipelines.training.ray_trainer import beside_the_main_thread


def test_what_it_gives_and_what_it_raises_come_back() -> None:
    assert beside_the_main_thread(threading.current_thread, lambda: None) is not threading.main_thread()
    with pytest.raises(KeyError, match="lost"):
        beside_the_main_thread(lambda: {}["lost"], lambda: None)


def test_a_handler_that_it_would_set_is_not_set() -> None:
    """As Ray Train's own for SIGINT: it sets one in the main thread only."""
    before = signal.getsignal(signal.SIGINT)

    def train() -> str:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        return "trained"

    assert beside_the_main_thread(train, lambda: None) == "trained"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_training_that_must_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_trainer, "LOOK", 0.02)
    end, began = threading.Event(), time.monotonic()
    reasons = iter([None, None, "the folder was taken over"])
    with pytest.raises(RuntimeError, match="the folder was taken over"):
        beside_the_main_thread(lambda: end.wait(30), lambda: next(reasons))
    assert time.monotonic() - began < 5
    end.set()


def test_why_a_training_ended_before_its_end_is_posted(ray_local: Any) -> None:
    for name in ("early-stop", "early-fail"):
        postings.forget(name)
    with pytest.raises(KeyboardInterrupt), ray_trainer._end_told("early-stop"):
        raise KeyboardInterrupt
    with pytest.raises(RuntimeError), ray_trainer._end_told("early-fail"):
        raise RuntimeError("waited 60 minutes\nfor room")
    assert (postings.was_stopped("early-stop"), postings.failure("early-stop")) == (True, None)
    assert (postings.was_stopped("early-fail"), postings.failure("early-fail")) == (
        False,
        "waited 60 minutes for room",
    )
    for name in ("early-stop", "early-fail"):
        postings.forget(name)
