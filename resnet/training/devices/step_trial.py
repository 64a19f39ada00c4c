"""The trial of a captured step: from the same state and on the same batches it must do what the step does uncaptured.

A capture that leaves something out, or reads what was true when it was recorded, trains wrongly without a word. So some
steps are done three times from one state: twice as they are, which shows how far the device's own tries lie apart, and
once replayed. Afterwards all is as it was before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from resnet.training.checkpoint import optimizer_tensors
from resnet.training.devices.compiled_blocks import complaint
from resnet.training.weight_average import Average

State = Mapping[str, Mapping[str, Tensor]]  # tensors by name, by kind
Steps = Callable[[int], Tensor]  # a step of the trial by its number, (3,) sums

# Steps of the trial: the number of each, which decides the average's share, and its lr in parts of the peak. They
# differ, so that a value that was recorded for good is seen; lr is small, so that no network explodes in three steps.
TRIAL = ((0, 0.1), (3, 0.4), (9, 0.2))

# Where two uncaptured tries agree to the last bit, the captured one must too. Where they differ, as by sums whose order
# is left to chance, each tensor may lie so many times as far away, and this part of its change beside
NOISES, FLOOR = 10.0, 1e-3
MOST = 0.1  # of the change of all tensors of a kind together, whatever the noise


def changed_by_steps(network: nn.Module, optimizer: torch.optim.Optimizer, average: Average | None) -> State:
    """All that a step changes: the tensors in use."""
    found: dict[str, Mapping[str, Tensor]] = {
        "weights": {name: parameter.detach() for name, parameter in network.named_parameters()},
        "statistics": dict(network.named_buffers()),
        "momentum": optimizer_tensors(network, optimizer),
    }
    return found if average is None else found | {"average": average.tensors}


def addresses(state: State) -> list[int]:
    """Places in memory, which a captured step takes for granted."""
    return [tensor.data_ptr() for tensors in state.values() for tensor in tensors.values()]


def trial_of_steps(record: Callable[[], None], plain: Steps, replayed: Steps, state: State, count: int) -> str | None:
    """None: replayed steps do what uncaptured ones do; or why they are not to be trusted, in one line.

    record: makes the recording; plain, replayed: steps 0 to `count` of either kind; state: of `changed_by_steps`, whose
    values are as before when this returns.
    """
    before = _copies(state)
    try:
        record()
        first, second, found = (_after(steps, state, before, count) for steps in (plain, plain, replayed))
        nothing = {"loss": {name: torch.zeros_like(loss) for name, loss in first["loss"].items()}}
        return difference({**before, **nothing}, first, second, found)
    except Exception as error:  # a recording fails in any way: no memory, a word to the host, a library
        return complaint(error)
    finally:
        _put_back(state, before)


def difference(before: State, first: State, second: State, found: State) -> str | None:
    """Where replayed steps differ from uncaptured ones, in one line; None: nowhere by more than the device's own tries.

    before: the state from which they began; first, second: after uncaptured steps; found: after replayed ones.
    """
    noisy = any(not torch.equal(tensor, second[kind][name]) for kind in first for name, tensor in first[kind].items())
    for kind, tensors in before.items():
        change = _norms(first[kind], tensors)
        noise, error = (_norms(other[kind], first[kind]) for other in (second, found))
        if not torch.isfinite(change).all():
            return f"{kind} of the uncaptured steps are not finite"
        if kind == "weights" and not change.any():
            return "the uncaptured steps change no weights"
        allowed = NOISES * noise + (FLOOR * change if noisy else 0)
        for name, off, most in zip(tensors, error.tolist(), allowed.tolist(), strict=True):
            if not off <= most:  # NaN too
                return f"{kind}: {name} differs by {off:.2g} from the uncaptured steps, which may be {most:.2g}"
        if not error.norm() <= MOST * change.norm():
            return f"{kind}: {error.norm() / change.norm():.2g} of the change differs, at most {MOST:g} may"
    return None


def _after(steps: Steps, state: State, before: State, count: int) -> State:
    """The state after some steps from the one before, and their losses."""
    _put_back(state, before)
    sums = [steps(number) for number in range(count)]
    return {**_copies(state), "loss": {f"step {number}": own[0] for number, own in enumerate(sums)}}


def _norms(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> Tensor:
    """Euclidean distances, tensor by tensor, on the host."""
    far = [torch.linalg.vector_norm(tensor.double() - others[name].double()) for name, tensor in some.items()]
    return torch.stack(far).cpu() if far else torch.zeros(0, dtype=torch.float64)


def _copies(state: State) -> dict[str, Mapping[str, Tensor]]:
    return {kind: {name: tensor.clone() for name, tensor in tensors.items()} for kind, tensors in state.items()}


@torch.no_grad()
def _put_back(state: State, before: State) -> None:
    for kind, tensors in state.items():
        for name, tensor in tensors.items():
            tensor.copy_(before[kind][name])
