"""A captured step reads draws, lr and share from its tensors, and gives its caller sums of their own."""

import pytest
import torch
from torch import Tensor, nn

from resnet.recipes.recipe_settings import Optim
from resnet.training.devices.captured_step import CapturedStep, CudaGraph, StepGraph
from resnet.training.optimizer import begin_with_no_momentum, optimizer, set_lr
from resnet.training.step import update
from tests.resnet.training.devices.recorded_graphs import Recorded

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


class Model:
    """A classifier of points that lie on the device, by their places; its fc learns ten times as fast."""

    def __init__(self, device: torch.device) -> None:
        torch.manual_seed(0)
        self.network = nn.ModuleDict({"conv1": nn.Linear(3, 8), "fc": nn.Linear(8, 2)}).to(device)
        self.optimizer = optimizer(self.network, Optim(), head_lr=10)
        begin_with_no_momentum(self.optimizer)
        self.points = torch.randn(20, 3, generator=torch.Generator().manual_seed(1)).to(device)

    def by_draws(self, draws: Tensor, share: Tensor) -> Tensor:
        points = self.points[draws[:, 0]]
        loss = nn.functional.cross_entropy(self.network["fc"](self.network["conv1"](points).relu()), draws[:, 1])
        (loss + share).backward()
        update(self.optimizer)
        return torch.stack([loss.detach() * len(draws), share, torch.ones_like(share)]).double()

    def plain(self, draws: Tensor, lr: float, share: float) -> Tensor:
        set_lr(self.optimizer, lr)
        return self.by_draws(draws, torch.tensor(share, device=draws.device))


def batches(device: torch.device) -> list[Tensor]:
    rng = torch.Generator().manual_seed(2)
    found = [torch.randint(0, 20, (6, 5), generator=rng) for _ in range(4)]
    for draws in found:
        draws[:, 1] %= 2
    return [draws.to(device) for draws in found]


def graph_of(device: torch.device) -> StepGraph:
    return CudaGraph(device) if device.type == "cuda" else Recorded()


@pytest.mark.parametrize("name", DEVICES)
def test_replays_are_the_steps_themselves(name: str) -> None:
    device = torch.device(name)
    model, other = Model(device), Model(device)
    given = [(draws, 0.1 / (1 + n), 0.5**n) for n, draws in enumerate(batches(device))]
    captured = CapturedStep(model.by_draws, model.optimizer, given[0][0], graph_of(device))
    captured.record()
    model.network.load_state_dict(other.network.state_dict())
    begin_with_no_momentum_again(model)
    found = [captured(*each) for each in given]
    expected = [other.plain(*each) for each in given]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0 if name == "cpu" else 1e-5, atol=0 if name == "cpu" else 1e-6)
    for parameter, theirs in zip(model.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(parameter, theirs, rtol=0 if name == "cpu" else 1e-5, atol=1e-7)


def begin_with_no_momentum_again(model: Model) -> None:
    """In place: the recording knows where the momentum lies."""
    for state in model.optimizer.state.values():
        state["momentum_buffer"].zero_()


def test_the_optimiser_has_its_numbers_back_after_a_recording_and_each_replay() -> None:
    device = torch.device("cpu")
    model, (draws, *_) = Model(device), batches(device)
    set_lr(model.optimizer, 0.25)
    captured = CapturedStep(model.by_draws, model.optimizer, draws, Recorded())
    captured.record()
    captured(draws, 0.125, 0.0)
    assert [group["lr"] for group in model.optimizer.param_groups] == [0.25, 2.5]
    assert [lr.item() for lr in captured.lrs] == [0.125, 1.25]


def test_sums_are_the_callers_own() -> None:
    device = torch.device("cpu")
    model, (draws, other, *_) = Model(device), batches(device)
    captured = CapturedStep(model.by_draws, model.optimizer, draws, Recorded())
    captured.record()
    first = captured(draws, 0.1, 0.5)
    kept = first.clone()
    captured(other, 0.1, 0.25)
    assert torch.equal(first, kept)
    assert first[1] == 0.5


def test_a_batch_of_another_size_is_refused() -> None:
    device = torch.device("cpu")
    model, (draws, *_) = Model(device), batches(device)
    captured = CapturedStep(model.by_draws, model.optimizer, draws, Recorded())
    with pytest.raises(RuntimeError, match="must match"):
        captured(draws[:4], 0.1, 0.5)
