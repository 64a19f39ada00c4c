"""Each image is decoded once, in a thread, for the one who asked; the event loop is woken seldom."""

import asyncio
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.decoders import Decoders


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-5, 50), max_size=60), st.integers(1, 4))
def test_everybody_gets_his_own_result_or_error(items: list[int], threads: int):
    def root(item: int) -> float:
        if item < 0:
            raise ValueError(f"no root of {item}")
        return item**0.5

    async def all_of_them() -> list[float | BaseException]:
        decoders = Decoders(root, threads)
        found = await asyncio.gather(*(decoders.run(item) for item in items), return_exceptions=True)
        decoders.close()
        return found

    for item, found in zip(items, asyncio.run(all_of_them()), strict=True):
        assert str(found) == (str(item**0.5) if item >= 0 else f"no root of {item}")


def test_who_leaves_before_his_turn_costs_nothing_and_disturbs_nobody():
    release, seen = threading.Event(), []

    def slow(item: int) -> int:
        seen.append(item)
        release.wait(5)
        return item

    async def story() -> list[int]:
        decoders = Decoders(slow, 1)
        first, second, third = (asyncio.create_task(decoders.run(i)) for i in range(3))
        while not seen:
            await asyncio.sleep(0.001)
        first.cancel()
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        result = await third
        decoders.close()
        with pytest.raises(asyncio.CancelledError):
            await first
        return [result]

    assert asyncio.run(story()) == [2]
    assert seen == [0, 2]


def test_what_is_decoded_while_the_loop_is_busy_is_handed_over_together():
    calls = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        threadsafe = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *given, **options: calls.append(given) or threadsafe(*given, **options)  # type: ignore[method-assign]
        done = []
        decoders = Decoders(done.append, 1)
        tasks = [asyncio.create_task(decoders.run(i)) for i in range(16)]
        await asyncio.sleep(0)
        deadline = time.monotonic() + 5
        while len(done) < 16 and time.monotonic() < deadline:
            time.sleep(0.001)  # the loop does something else
        await asyncio.gather(*tasks)
        decoders.close()

    asyncio.run(story())
    assert 1 <= len(calls) <= 2


def test_the_threads_end():
    before = threading.active_count()
    decoders = Decoders(int, 3)
    assert threading.active_count() == before + 3
    decoders.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
