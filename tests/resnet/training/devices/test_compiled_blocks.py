"""Compiled blocks compute the same; a compiler that fails leaves the network as it was."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from resnet import build
from resnet.training.batch_norm_statistics import statistics
from resnet.training.devices.compiled_blocks import (
    LONG,
    compile_blocks,
    compile_or_say,
    is_to_be_compiled,
    restore_blocks,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
# torch's own, which it hides by another filter
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
Choice = Literal["auto", "on", "off"]


@pytest.mark.parametrize(
    ("wanted", "device", "steps", "deterministic", "expected"),
    [
        ("auto", GPU, LONG, False, True),
        ("auto", GPU, LONG - 1, False, False),
        ("auto", GPU, LONG, True, False),
        ("auto", CPU, LONG, False, False),
        ("on", CPU, 1, True, True),
        ("off", GPU, LONG, False, False),
    ],
)
def test_a_long_run_on_a_gpu_is_compiled_unless_it_says_otherwise(
    wanted: Choice, device: torch.device, steps: int, deterministic: bool, expected: bool
) -> None:
    assert is_to_be_compiled(wanted, device, steps, deterministic) is expected


def counting(graphs: list[Any]) -> Any:
    """A backend of torch.compile that runs graphs as they are, and keeps them."""

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    return backend


def test_blocks_of_one_shape_are_compiled_once_and_give_the_same_numbers() -> None:
    torch.manual_seed(0)
    plain = build("cifar10-resnet20", 4)
    model, graphs = copy.deepcopy(plain), []
    compile_blocks(model, counting(graphs))
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(pixels), plain(pixels))
    assert len(graphs) == 5, "9 blocks: one shape in the first stage, two in each other"
    torch.testing.assert_close(statistics(model, [pixels]), statistics(plain, [pixels]))
    torch.testing.assert_close(model.eval()(pixels), plain.eval()(pixels))
    assert len(graphs) == 5, "neither evaluation nor statistics compile anything"


def test_a_trial_compiles_every_shape_and_leaves_weights_gradients_and_statistics_alone() -> None:
    torch.manual_seed(0)
    model, graphs = build("cifar10-resnet8", 4), []
    before = copy.deepcopy(model.state_dict())
    shapes = [torch.randn(2, 3, side, side) for side in (16, 32)]
    assert compile_or_say(model, shapes, "bfloat16", counting(graphs)) is None
    assert len(graphs) == 2 * 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        model(shapes[0]).sum().backward()
    assert len(graphs) == 2 * 3, "a step finds what the trial has compiled"


class Failing(torch.autograd.Function):
    """The identity, whose gradient cannot be computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError("no backward\nhere")


def without_backward(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """A backend whose code fails on its way back only, where torch too compiles it late."""
    return lambda *given: tuple(Failing.apply(out) for out in graph.forward(*given))


def without_compiler(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """A backend that cannot compile anything."""
    raise FileNotFoundError("cc")


@pytest.mark.parametrize(("backend", "said"), [(without_backward, "no backward here"), (without_compiler, "cc")])
def test_a_failed_compilation_is_one_sentence_and_the_network_trains_as_if_it_had_not_been_tried(
    backend: Any, said: str
) -> None:
    torch.manual_seed(0)
    plain = build("cifar10-resnet8", 4)
    model, pixels = copy.deepcopy(plain), torch.randn(2, 3, 32, 32)
    why = compile_or_say(model, [pixels], "float32", backend)
    assert why is not None
    assert said in why
    assert "\n" not in why
    assert len(why) <= 200
    results = []
    for network in (plain, model):
        network(pixels).sum().backward()
        results.append([*network.state_dict().values(), *gradients(network)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def test_restored_blocks_run_as_they_were_written() -> None:
    model, graphs = build("cifar10-resnet8", 4), []
    compile_blocks(model, counting(graphs))
    restore_blocks(model)
    restore_blocks(model)
    model(torch.randn(2, 3, 32, 32))
    assert graphs == []
