"""A canary beside the stable version: who answers, what is counted against it, and how the two are compared."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from serve.inference.inference_service import Served
from serve.problems import Problem
from serve.settings import Args
from serve.versions.canary import CanaryTrial, Count
from serve.versions.loaded_model import Loaded, load_version
from serve.versions.traffic import Canary, Version, to_canary
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


def test_both_answer_their_share_and_what_the_canary_answered_is_compared(
    pair: tuple[Loaded, Loaded], picture: Picture
):
    stable, canary = pair
    trial = CanaryTrial(stable, canary, 40)
    images = [picture(seed) for seed in range(12)]
    best: dict[str, list[int]] = {"1": [], "2": []}

    async def story() -> None:
        for data in images:
            (outcome,), by = await trial.answer([data], data)
            assert by is (canary if to_canary(data, 40) else stable)
            for loaded in pair:
                (alone,) = await loaded.inference.answer([data])
                assert isinstance(alone, Served)
                if loaded is by:
                    assert isinstance(outcome, Served)
                    assert outcome.answer.probabilities == pytest.approx(alone.answer.probabilities, abs=1e-4)
                if by is canary:
                    best[loaded.version].append(int(alone.answer.probabilities.argmax()))
            while trial._tasks:
                await asyncio.sleep(0.01)

    asyncio.run(story())
    found = trial.comparison()
    expected = sum(to_canary(data, 40) for data in images)
    assert 0 < expected < len(images)
    assert (found.canary.requests, found.stable.requests) == (expected, len(images) - expected)
    assert found.compared == expected
    assert found.agreed == sum(a == b for a, b in zip(best["1"], best["2"], strict=True))
    assert 0 < found.difference <= expected


def test_what_is_no_image_is_refused_once_and_no_version_is_blamed(pair: tuple[Loaded, Loaded]):
    trial = CanaryTrial(*pair, 99.9)
    with pytest.raises(Problem, match="an image must be"):
        asyncio.run(trial.answer([b"no image"], b"key"))
    found = trial.comparison()
    assert (found.canary.requests, found.canary.errors, found.stable.requests) == (1, 0, 0)


def test_a_trial_is_of_a_version_a_checkpoint_and_a_share(pair: tuple[Loaded, Loaded]):
    stable, canary = pair
    trial = CanaryTrial(stable, canary, 10)
    same = Canary(version="2", checkpoint=canary.checkpoint, percent=10)
    assert trial.is_of(same)
    for other in ({"version": "3"}, {"checkpoint": stable.checkpoint}, {"percent": 11}):
        assert not trial.is_of(same.model_copy(update=other))
