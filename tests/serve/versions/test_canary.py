"""A canary beside the stable version: who answers, what is counted against it, and how the two are compared."""

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serve.inference.inference_service import Inference, Served
from serve.problems import Problem
from serve.settings import Args
from serve.versions.canary import CanaryTrial, Count
from serve.versions.loaded_model import Loaded, load_version
from serve.versions.traffic import Canary, Version, answering
from tests.serve.conftest import write_checkpoint

Picture = Callable[..., bytes]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loaded, Loaded]]:
    """Versions 1 and 2 of a small network with other weights."""
    root, made = tmp_path_factory.mktemp("pair"), []
    for number in (1, 2):
        folder = write_checkpoint(root / f"{number}", "cifar10-resnet8-A", 32, 10, seed=number)
        args = Args(checkpoint=str(folder), precision="float32", access_log=False)
        made.append(load_version(Version(version=str(number), checkpoint=str(folder)), args, "resnet", "test"))
    yield made[0], made[1]
    for loaded in made:
        loaded.inference.close()


@pytest.mark.parametrize(
    ("raised", "errors"),
    [
        (None, 0),
        (Problem(400, "no image"), 0),
        (Problem(503, "full"), 0),
        (Problem(504, "late"), 1),
        (RuntimeError("x"), 1),
    ],
    ids=["answered", "the client's fault", "a full queue", "late", "broken"],
)
def test_only_what_a_version_is_to_blame_for_is_an_error_of_it(raised: Exception | None, errors: int):
    count = Count("2")
    expected = contextlib.nullcontext() if raised is None else pytest.raises(type(raised))
    with expected, count.timed():
        if raised is not None:
            raise raised
    side = count.side()
    assert (side.version, side.requests, side.errors, len(side.seconds)) == ("2", 1, errors, int(raised is None))


def beside(loaded: Loaded, percent: float, **more: Any) -> Canary:
    return Canary(version=loaded.version, checkpoint=loaded.checkpoint, percent=percent, **more)


async def settle(trial: CanaryTrial) -> None:
    """Wait for what is computed behind the client's back."""
    while trial._tasks:
        await asyncio.sleep(0.01)


async def best_class(loaded: Loaded, data: bytes) -> int:
    (outcome,) = await loaded.inference.answer([data])
    assert isinstance(outcome, Served)
    return int(outcome.answer.probabilities.argmax())


def test_both_answer_their_share_and_what_the_canary_answered_is_compared(
    pair: tuple[Loaded, Loaded], picture: Picture
):
    stable, canary = pair
    wanted = beside(canary, 40)
    trial = CanaryTrial(stable, {wanted: canary})  # pyright: ignore[reportUnhashable]
    images = [picture(seed) for seed in range(12)]
    expected = [data for data in images if answering(data, [wanted])]
    agreed: list[bool] = []

    async def story() -> None:
        for data in images:
            (outcome,), by = await trial.answer([data], data)
            await settle(trial)
            assert isinstance(outcome, Served)
            assert by is (canary if data in expected else stable)
            assert int(outcome.answer.probabilities.argmax()) == await best_class(by, data)
            if by is canary:
                agreed.append(await best_class(stable, data) == await best_class(canary, data))

    asyncio.run(story())
    (found,) = trial.comparisons()
    assert 0 < len(expected) < len(images)
    assert (found.canary.requests, found.stable.requests) == (len(expected), len(images) - len(expected))
    assert (found.compared, found.agreed) == (len(expected), sum(agreed))
    assert 0 < found.difference <= len(expected)


def test_a_shadow_computes_its_share_and_never_answers(pair: tuple[Loaded, Loaded], picture: Picture):
    stable, shadow = pair
    trial = CanaryTrial(stable, {beside(shadow, 100, shadow=True): shadow})  # pyright: ignore[reportUnhashable]

    async def story() -> None:
        for seed in range(4):
            _, by = await trial.answer([picture(seed)], picture(seed))
            assert by is stable
            await settle(trial)

    asyncio.run(story())
    (found,) = trial.comparisons()
    assert (found.stable.requests, found.canary.requests, found.canary.errors, found.compared) == (4, 4, 0, 4)
    assert len(found.canary.seconds) == 4


def test_what_a_shadow_fails_at_no_client_sees(pair: tuple[Loaded, Loaded], picture: Picture):
    stable, shadow = pair
    broken = dataclasses.replace(shadow, inference=Broken(shadow.inference))  # pyright: ignore[reportArgumentType]
    trial = CanaryTrial(stable, {beside(shadow, 100, shadow=True): broken})  # pyright: ignore[reportUnhashable]

    async def story() -> None:
        _, by = await trial.answer([picture(0)], b"key")
        assert by is stable
        await settle(trial)

    asyncio.run(story())
    (found,) = trial.comparisons()
    assert (found.canary.requests, found.canary.errors, found.compared) == (1, 1, 0)


class Broken:
    """A network that fails, behind a queue like any other's."""

    def __init__(self, inference: Inference) -> None:
        self.classifier, self.admit = inference.classifier, inference.admit
        self.settings, self.in_progress = inference.settings, 0

    async def answer(self, _: object) -> None:
        raise RuntimeError("the network failed")


def test_what_is_no_image_is_refused_once_and_no_version_is_blamed(pair: tuple[Loaded, Loaded]):
    stable, canary = pair
    trial = CanaryTrial(stable, {beside(canary, 99.9): canary})  # pyright: ignore[reportUnhashable]
    with pytest.raises(Problem, match="an image must be"):
        asyncio.run(trial.answer([b"no image"], b"key"))
    (found,) = trial.comparisons()
    assert (found.canary.requests, found.canary.errors, found.stable.requests) == (1, 0, 0)


def test_several_beside_one_are_each_compared_with_it(pair: tuple[Loaded, Loaded], picture: Picture):
    stable, other = pair
    copy = dataclasses.replace(other, version="3")
    wanted = (beside(other, 50), beside(copy, 100, shadow=True))
    trial = CanaryTrial(stable, dict(zip(wanted, (other, copy), strict=True)))
    assert trial.wanted == wanted
    images = [picture(seed) for seed in range(8)]
    own = sum(answering(data, wanted) is None for data in images)

    async def story() -> None:
        for data in images:
            await trial.answer([data], data)
            await settle(trial)

    asyncio.run(story())
    canary, shadow = trial.comparisons()
    assert (canary.canary.version, shadow.canary.version) == ("2", "3")
    assert (canary.canary.requests, shadow.canary.requests, canary.stable.requests) == (len(images) - own, own, own)
