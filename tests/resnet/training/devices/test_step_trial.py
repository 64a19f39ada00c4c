"""A replayed step is trusted where it differs from the uncaptured one by no more than the device's own tries do."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from resnet import build
from resnet.recipes.recipe_settings import Optim
from resnet.training.devices.step_trial import addresses, changed_by_steps, difference, trial_of_steps
from resnet.training.optimizer import optimizer
from resnet.training.step import train_step
from resnet.training.weight_average import Average

State = dict[str, dict[str, Tensor]]


def before() -> State:
    torch.manual_seed(0)
    return {
        "weights": {"conv": torch.randn(8, 9), "gamma": torch.ones(8)},
        "statistics": {"mean": torch.zeros(8), "count": torch.tensor(5)},
        "momentum": {},
        "loss": {"step 0": torch.tensor(0.0, dtype=torch.float64)},
    }


def after(noise: float, seed: int) -> State:
    """The state after steps that change all by about 1; the device's own tries differ by `noise`."""
    found, rng = before(), torch.Generator().manual_seed(1)
    for tensors in found.values():
        for tensor in tensors.values():
            tensor += torch.ones_like(tensor) if tensor.ndim == 0 else torch.randn(tensor.shape, generator=rng)
    rng.manual_seed(seed)
    for name in ("conv", "gamma"):
        found["weights"][name] += noise * torch.randn(found["weights"][name].shape, generator=rng)
    return found


def test_equal_bits_are_trusted_and_one_other_bit_is_not_where_the_device_repeats_itself() -> None:
    assert difference(before(), after(0, 1), after(0, 2), after(0, 3)) is None
    found = after(0, 3)
    found["weights"]["conv"][2, 3] = torch.nextafter(found["weights"]["conv"][2, 3], torch.tensor(9.0))
    why = difference(before(), after(0, 1), after(0, 2), found)
    assert why is not None
    assert why.startswith("weights: conv differs by ")


@pytest.mark.parametrize("noise", [1e-6, 1e-4, 1e-2])
def test_a_device_that_does_not_repeat_itself_is_allowed_its_own_noise(noise: float) -> None:
    for seed in range(3, 20):
        assert difference(before(), after(noise, 1), after(noise, 2), after(noise, seed)) is None


def unchanged(kind: str, name: str) -> Callable[[State], None]:
    return lambda found: found[kind].__setitem__(name, before()[kind][name])


def slower(found: State) -> None:
    for name, tensor in found["weights"].items():
        tensor.copy_(before()["weights"][name] + 0.7 * (tensor - before()["weights"][name]))


@pytest.mark.parametrize("noise", [0, 1e-6, 1e-3])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (unchanged("statistics", "mean"), "statistics: mean differs by"),
        (unchanged("statistics", "count"), "statistics: count differs by 1"),
        (unchanged("weights", "gamma"), "weights: gamma differs by"),
        (unchanged("loss", "step 0"), "loss: step 0 differs by 1"),
        (slower, "weights: conv differs by"),
        (lambda found: found["weights"]["conv"].fill_(torch.nan), "weights: conv differs by nan"),
    ],
)
def test_what_is_wrong_is_named(noise: float, spoil: Callable[[State], None], words: str) -> None:
    found = after(noise, 3)
    spoil(found)
    why = difference(before(), after(noise, 1), after(noise, 2), found)
    assert why is not None
    assert why.startswith(words)


def test_noise_as_large_as_the_steps_themselves_shows_nothing() -> None:
    why = difference(before(), after(0.5, 1), after(0.5, 2), after(0.5, 3))
    assert why is not None
    assert why.endswith("of the change differs, at most 0.1 may")


def test_steps_that_change_nothing_or_explode_show_nothing() -> None:
    still = before()
    assert difference(still, still, still, still) == "the uncaptured steps change no weights"
    exploded = after(0, 1)
    exploded["weights"]["conv"].fill_(torch.inf)
    assert difference(before(), exploded, exploded, exploded) == "weights of the uncaptured steps are not finite"


def test_after_a_trial_all_is_as_before_whatever_came_out() -> None:
    torch.manual_seed(0)
    network = build("cifar10-resnet8", 4)
    optim, average = optimizer(network, Optim(lr=0.1)), Average(network)
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4) for _ in range(3)]
    train_step(network, optim, *batches[0])  # momentum is there

    def step(number: int) -> Tensor:
        sums = train_step(network, optim, *batches[number])
        average.move(0.5)
        return sums

    def fail() -> None:
        step(0)
        raise RuntimeError("no\nmemory")

    state = changed_by_steps(network, optim, average)
    kept, places = copy.deepcopy(state), addresses(state)
    names = {kind: len(tensors) for kind, tensors in state.items()}
    assert names["momentum"] == names["weights"] == len(list(network.parameters()))
    assert names["average"] == names["weights"] + names["statistics"]
    assert trial_of_steps(lambda: None, step, step, state, 3) is None
    assert trial_of_steps(fail, step, step, state, 3) == "RuntimeError: no memory"
    why = trial_of_steps(lambda: None, step, lambda number: step(0 * number), state, 3)
    assert why is not None
    now = changed_by_steps(network, optim, average)
    assert addresses(now) == places
    for kind, tensors in kept.items():
        assert all(torch.equal(tensor, now[kind][name]) for name, tensor in tensors.items()), kind
