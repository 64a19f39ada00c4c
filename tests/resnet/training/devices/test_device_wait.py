"""Waiting for data is time in which the device stands, not the host."""

import time
from typing import Any

import pytest
import torch

from resnet.training.devices.device_wait import DeviceWait


class Stream:
    """A device's stream with a clock of its own: work takes seconds of it from when it is given. In place of CUDA's."""

    def __init__(self) -> None:
        self.now = self.busy_until = 0.0

    def give(self, seconds: float) -> None:
        self.busy_until = max(self.busy_until, self.now) + seconds

    def event(self) -> "Event":
        return Event(self)


class Event:
    """As torch.cuda.Event."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.at = stream, float("inf")

    def record(self) -> None:
        self.at = max(self.stream.now, self.stream.busy_until)

    def query(self) -> bool:
        return self.at <= self.stream.now

    def elapsed_time(self, end_event: Any, /) -> float:
        assert end_event.query()
        return 1000 * (end_event.at - self.at)


def test_a_host_that_runs_ahead_waits_without_cost() -> None:
    stream = Stream()
    wait = DeviceWait(stream.event)
    for _ in range(5):
        stream.give(1.0)
        with wait.waiting():
            stream.now += 0.5
    stream.now = 100
    assert wait.taken() == 0


def test_the_gap_in_the_devices_work_is_what_counts() -> None:
    stream = Stream()
    wait = DeviceWait(stream.event)
    stream.give(1.0)
    with wait.waiting():
        stream.now += 3.0  # 1 of work, 2 of nothing
    assert wait.taken() == pytest.approx(2.0)
    assert wait.taken() == 0, "each second counts once"
    stream.give(4.0)
    with wait.waiting():
        stream.now += 1.0
    assert wait.taken() == 0, "the device has not come to the end of it"
    stream.now += 10
    with wait.waiting():
        stream.now += 0.25
    assert wait.taken() == pytest.approx(0.25)


def test_on_a_cpu_it_is_the_hosts_time() -> None:
    wait = DeviceWait.of(torch.device("cpu"))
    with wait.waiting():
        time.sleep(0.02)
    assert 0.02 <= wait.taken() < 0.2


@pytest.mark.gpu
def test_a_gpu_that_is_busy_has_not_waited() -> None:
    device = torch.device("cuda")
    wait, matrix = DeviceWait.of(device), torch.randn(4096, 4096, device=device)
    for idle in (False, True):
        torch.cuda.synchronize()
        wait.taken()
        for _ in range(0 if idle else 200):
            matrix = torch.tanh(matrix @ matrix)
        with wait.waiting():
            time.sleep(0.05)
        torch.cuda.synchronize()
        assert (wait.taken() > 0.04) is idle
