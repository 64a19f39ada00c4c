"""Errors as the libraries really raise them: those that another try would meet again, and those that it may not."""

import errno
from typing import Any

import pytest
import torch

from pipelines.progress import postings
from pipelines.training.guards.lasting_causes import CannotSave, lasting
from resnet import build


def raised(act: Any) -> Exception:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def wrong_shape() -> None:
    network = build("cifar10-resnet8", 2)
    network.load_state_dict(build("cifar10-resnet8", 20).state_dict())


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (wrong_shape, "size mismatch for fc.weight"),
        (lambda: torch.ones(2, 3) @ torch.ones(2, 3), "shapes cannot be multiplied"),
        (lambda: torch.ones(2).copy_(torch.ones(3)), "must match"),
        (lambda: {}["momentum"], "KeyError('momentum')"),
        (lambda: int("a"), "invalid literal"),
    ],
)
def test_a_mistake_is_met_again(act: Any, words: str) -> None:
    error = raised(act)
    assert words in str(lasting("run", error))


def test_a_full_disk_is_met_again_and_a_lost_peer_is_not(ray_local: Any) -> None:
    assert lasting("run", OSError(errno.ENOSPC, "No space left on device", "/full/file")) is not None
    assert lasting("run", CannotSave("no room")) == "no room"
    for error in (
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        RuntimeError(
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41231"
        ),
        TimeoutError("no answer"),
    ):
        assert lasting("run", error) is None
        assert lasting("run", error) is None, "however often"


def test_an_unknown_error_that_comes_twice_at_the_same_step_stays(ray_local: Any) -> None:
    postings.forget("unknown")
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    assert lasting("unknown", error) is None
    assert lasting("unknown", RuntimeError("something else")) is None
    assert lasting("unknown", error) is None, "not the one before"
    assert str(lasting("unknown", error)).endswith("twice")
    postings.forget("unknown")
    assert lasting("unknown", error) is None
