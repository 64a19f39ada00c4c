"""Batches that are filled up to a captured size give each image its own answer. Without a GPU: replayed by a real pass
over the same memory; the capture itself runs where there is one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from serve.inference.engines.cuda_graphs import LARGEST, Graphs, captured

SIZES: list[int] = []


def network(images: Tensor) -> tuple[Tensor, Tensor]:
    pooled = images.float().mean((1, 2))
    return pooled.softmax(1), pooled


def rerun(network: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor) -> tuple[Callable[[], None], tuple]:
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
    assert SIZES[-1] == 4  # of another type, another graph


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: a CUDA graph cannot be captured")
def test_a_captured_graph_computes_what_the_network_does():
    graphs = Graphs(network, captured)
    for count in (1, 5, 8, 3):
        batch = torch.randint(0, 256, (count, 4, 4, 3), dtype=torch.uint8, device="cuda")
        for found, expected in zip(graphs(batch), network(batch), strict=True):
            torch.testing.assert_close(found, expected)
