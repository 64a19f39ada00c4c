"""Each item is computed once, in order, in batches that fill while the network is busy."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.inference import batching
from serve.inference.batching import Batcher, Timed


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), min_size=1, max_size=40), st.integers(1, 9))
def test_every_item_gets_its_own_result_in_batches_of_bounded_size(items: list[int], largest: int):
    batches: list[Sequence[int]] = []

    def compute(batch: Sequence[int]) -> list[str]:
        batches.append(batch)
        return [str(item) for item in batch]

    async def submit_all() -> list[str]:
        batcher = Batcher(compute, largest)
        timed = await asyncio.gather(*(batcher.submit(item) for item in items))
        batcher.close()
        return [t.result for t in timed]

    assert asyncio.run(submit_all()) == [str(item) for item in items]
    assert [item for batch in batches for item in batch] == items
    assert max(map(len, batches)) <= largest


def test_a_lone_item_does_not_wait_and_batches_fill_meanwhile():
    release, batches = threading.Event(), []

    def compute(batch: Sequence[int]) -> Sequence[int]:
        batches.append(list(batch))
        release.wait(5)
        return batch

    async def story() -> None:
        batcher = Batcher(compute, 4)
        first = asyncio.create_task(batcher.submit(0))
        while not batches:
            await asyncio.sleep(0.001)
        rest = [asyncio.create_task(batcher.submit(i)) for i in range(1, 6)]
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(first, *rest)
        batcher.close()

    asyncio.run(story())
    assert batches == [[0], [1, 2, 3, 4], [5]]


class Held:
    """A network that notes what it computes, and holds its first batch until it is released."""

    def __init__(self) -> None:
        self.release, self.seen = threading.Event(), []

    def compute(self, batch: Sequence[int]) -> Sequence[int]:
        self.seen.extend(batch)
        self.release.wait(5)
        return batch

    async def holding(self, batcher: Batcher[int, int], item: int) -> asyncio.Task[Timed[int]]:
        """The task of an item that is in the network."""
        task = asyncio.create_task(batcher.submit(item))
        while not self.seen:
            await asyncio.sleep(0.001)
        return task


def test_what_nobody_waits_for_is_not_computed():
    network = Held()

    async def story() -> None:
        batcher = Batcher(network.compute, 8)
        first = await network.holding(batcher, 0)
        gone, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0)
        gone.cancel()
        network.release.set()
        assert (await first).result == 0
        assert (await stays).result == 2
        batcher.close()

    asyncio.run(story())
    assert network.seen == [0, 2]


def test_a_failed_batch_is_reported_and_the_next_one_computed():
    def compute(batch: Sequence[int]) -> Sequence[float]:
        return [1 / item for item in batch]

    async def story() -> float:
        batcher = Batcher(compute, 1)
        with pytest.raises(ZeroDivisionError):
            await batcher.submit(0)
        answer = await batcher.submit(4)
        batcher.close()
        return answer.result

    assert asyncio.run(story()) == 0.25


def test_times_are_of_the_queue_and_of_the_network():
    def compute(batch: Sequence[int]) -> Sequence[int]:
        time.sleep(0.05)
        return batch

    async def story() -> list[tuple[float, float]]:
        batcher = Batcher(compute, 1)
        timed = await asyncio.gather(batcher.submit(1), batcher.submit(2))
        batcher.close()
        return [(t.queued, t.computed) for t in timed]

    (first_wait, first), (second_wait, second) = asyncio.run(story())
    assert first_wait < 0.04 < second_wait
    assert min(first, second) > 0.045


def recording(batches: list[list[int]]) -> Batcher[int, int]:
    """Batches of eight at most, handed back as they are and kept in the list."""

    def compute(batch: Sequence[int]) -> Sequence[int]:
        batches.append(list(batch))
        return batch

    return Batcher(compute, 8)


def test_a_batch_waits_for_what_is_announced_but_not_for_long():
    batches: list[list[int]] = []

    async def decoded(batcher: Batcher[int, int], item: int, seconds: float) -> int:
        with batcher.announce():
            await asyncio.sleep(seconds)
        return (await batcher.submit(item)).result

    async def story() -> None:
        batcher = recording(batches)
        soon = [decoded(batcher, i, 0.001 * i) for i in range(3)]
        await asyncio.gather(*soon, decoded(batcher, 9, 0.5))
        batcher.close()

    asyncio.run(story())
    assert batches == [[0, 1, 2], [9]]


def test_half_a_batch_does_not_wait_for_what_is_announced(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "PATIENCE", 60)
    batches: list[list[int]] = []

    async def story() -> None:
        batcher = recording(batches)
        with batcher.announce():
            await asyncio.wait_for(asyncio.gather(*map(batcher.submit, range(4))), 5)
        batcher.close()

    asyncio.run(story())
    assert batches == [[0, 1, 2, 3]]


def test_clients_that_were_answered_together_are_expected_together_but_not_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batching, "RETURN", 0.5)
    batches: list[list[int]] = []

    async def later(batcher: Batcher[int, int], item: int) -> None:
        await asyncio.sleep(0.02)
        await batcher.submit(item)

    async def story() -> tuple[float, float]:
        batcher = recording(batches)
        await asyncio.gather(*map(batcher.submit, (0, 1, 2)))
        asked_again = time.perf_counter()
        await asyncio.gather(batcher.submit(3), later(batcher, 4), later(batcher, 5))
        two_are_gone = time.perf_counter()
        await batcher.submit(6)
        batcher.close()
        return two_are_gone - asked_again, time.perf_counter() - two_are_gone

    together, alone = asyncio.run(story())
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert together < 0.4 < alone
