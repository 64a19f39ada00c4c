"""One camera's stream before a network that is slow: stale frames are dropped, late ones refused."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serve.inference.classifier import Answer, Classifier
from tests.serve.api.camera.stream_client import camera, told
from tests.serve.conftest import application, listening

Picture = Callable[..., bytes]


class Slow(Classifier):
    """The network on a machine that takes `seconds` for an image."""

    seconds = 0.0

    def run_batch(self, images: Sequence[np.ndarray]) -> list[Answer]:
        time.sleep(self.seconds * len(images))
        return super().run_batch(images)


@pytest.fixture(scope="module")
def slow(cifar: Path) -> Slow:
    return Slow(str(cifar), precision="float32")


def test_stale_frames_are_dropped_and_counted_and_the_newest_is_answered(slow: Slow, cifar: Path, picture: Picture):
    slow.seconds = 0.2
    app, inference = application(slow, cifar, deadline=5000)
    with listening(app) as url, camera(url) as socket:
        for number in range(10):
            socket.send(picture(number))
            time.sleep(0.005)
        first, last = told(socket), told(socket)
        assert (first["frame"], last["frame"]) == (1, 10)
        assert (last["frames"], last["dropped"], last["answered"]) == (10, 8, 2)
        assert last["predictions"][0]["id"] == slow.predict([picture(9)], 1)[0][0].image_class.id
        assert 150 < last["interval_ms"] < 400  # how often a frame may come
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        assert any(line.startswith("resnet_streams{") and line.endswith(" 1.0") for line in lines)
    lines = [line for line in inference_lines(inference) if line[0].startswith("resnet_stream_frames_total")]
    assert {(labels["outcome"], value) for _, labels, value in lines} == {
        ("answered", 2.0),
        ("dropped", 8.0),
        ("late", 0.0),
        ("refused", 0.0),
    }
    inference.close()


def inference_lines(inference: Any) -> list[tuple[str, dict[str, str], float]]:
    deadline = time.monotonic() + 5
    while inference.metrics.streams.collect()[0].samples[0].value and time.monotonic() < deadline:
        time.sleep(0.01)
    return [(s.name, s.labels, s.value) for family in inference.metrics.families() for s in family.samples]


def test_a_late_frame_is_refused_at_its_deadline_and_not_queued(slow: Slow, cifar: Path, picture: Picture):
    slow.seconds = 0.5
    app, inference = application(slow, cifar, deadline=100)
    with listening(app) as url, camera(url) as socket, camera(url) as other:
        began = time.perf_counter()
        socket.send(picture(1))
        time.sleep(0.02)
        other.send(picture(2))
        for each in (socket, other):
            answer = told(each)
            assert answer["error"] == {"status": 504, "detail": "no answer within 100 ms"}
            assert (answer["late"], answer["answered"]) == (1, 0)
            assert 95 < answer["ms"] < 200
        assert time.perf_counter() - began < 0.4  # before the first one is computed
        slow.seconds = 0.0
        time.sleep(0.6)
        for _ in range(3):  # a machine that is quick again answers again
            socket.send(picture(3))
            answer = told(socket)
        assert answer["predictions"]
    inference.close()
