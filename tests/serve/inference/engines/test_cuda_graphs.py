"""Batches that are filled up to a captured size give each image its own answer. Without a GPU: replayed by a real pass
over the same memory; the capture itself runs where there is one."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from serve.inference.engines.cuda_graphs import LARGEST, Graphs, captured

SIZES: list[int] = []


def network(images: Tensor) -> tuple[Tensor, Tensor]:
    pooled = images.float().mean((1, 2))
    return pooled.softmax(1), pooled


def rerun(
    network: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor, pool: object
) -> tuple[Callable[[], None], tuple]:
    """As a graph: the outputs stay where they are, and are written anew from the same input memory."""
    SIZES.append(len(images))
    outputs = network(images)

    def replay() -> None:
        for old, new in zip(outputs, network(images), strict=True):
            old.copy_(new)

    return replay, outputs


def test_each_image_has_its_own_answer_at_every_batch():
    graphs, images = Graphs(network, rerun), torch.randint(0, 256, (70, 4, 4, 3), dtype=torch.uint8)
    SIZES.clear()
    for count in [*range(1, 18), 3, 70, LARGEST, 1]:
        batch = images[-count:]
        for found, expected in zip(graphs(batch), network(batch), strict=True):
            assert torch.equal(found, expected), count
    assert SIZES == [1, 2, 4, 8, 16, 32, LARGEST]
    graphs(images[:3].float())
    assert SIZES[-1] == LARGEST, "floats come rarely: no request waits for their capture"


def test_threads_take_turns_over_captures_and_replays():
    """A new version is captured while the old one serves, each with graphs of its own."""
    busy, most, lock = [0], [0], threading.Lock()

    def slow(images: Tensor) -> tuple[Tensor, Tensor]:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.002)
        with lock:
            busy[0] -= 1
        return network(images)

    images = torch.randint(0, 256, (16, 4, 4, 3), dtype=torch.uint8)
    old, new = Graphs(slow, rerun), Graphs(slow, rerun)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: (old if n % 2 else new)(images[: 1 + n % 9])[1].clone(), range(40)))
    assert most == [1]
    for n, features in enumerate(found):
        assert features.shape == (1 + n % 9, 3)


@pytest.mark.gpu
def test_a_captured_graph_computes_what_the_network_does():
    graphs = Graphs(network, captured)
    for count in (8, 1, 5, 3):
        batch = torch.randint(0, 256, (count, 4, 4, 3), dtype=torch.uint8, device="cuda")
        for found, expected in zip(graphs(batch), network(batch), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.gpu
def test_a_version_is_captured_while_another_serves():
    """On one stream of captures, with memory asked for and waited for by another thread."""
    images = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8, device="cuda")
    old, expected = Graphs(network, captured), network(images)
    old(images)
    with ThreadPoolExecutor(1) as pool:
        serving = pool.submit(lambda: [old(images[: 1 + n % 16])[1].cpu() for n in range(500)])
        for _ in range(5):
            new = Graphs(network, captured)
            for count in (16, 8, 4, 2, 1):
                torch.testing.assert_close(new(images[:count])[1], expected[1][:count])
        assert len(serving.result()) == 500
