"""Turns: in order, as many as have an answer in time, late ones refused."""

import asyncio
import time

import pytest

from serve.api.camera.frame_turns import FrameTurns
from serve.api.camera.newest_frame import NewestFrame


def with_frame() -> NewestFrame:
    place = NewestFrame()
    place.put(b"image")
    return place


def test_as_many_are_let_in_as_have_their_answer_before_the_deadline():
    async def watch() -> None:
        busy = 0
        turns = FrameTurns(1.0, lambda: busy)
        turns.each = 0.3  # three of them take 0.9 s, four 1.2

        async def camera() -> bool:
            nonlocal busy
            let_in = await turns.wait(with_frame())
            busy += let_in
            return let_in

        asked = [asyncio.ensure_future(camera()) for _ in range(5)]
        await asyncio.sleep(0.01)
        assert ([each.done() for each in asked], busy) == ([True, True, True, False, False], 3)
        turns.look()
        await asyncio.sleep(0.01)
        assert not asked[3].done()
        busy -= 1
        turns.look()
        await asyncio.sleep(0.01)
        assert [each.done() for each in asked] == [True, True, True, True, False]  # first come, first served
        assert await asked[4] is False  # its deadline is over

    asyncio.run(watch())


def test_a_frame_that_waits_past_its_deadline_is_late_and_a_newer_one_has_more_time():
    async def watch() -> None:
        turns = FrameTurns(0.2, lambda: 50)
        turns.each = 1.0
        began = time.perf_counter()
        assert await turns.wait(with_frame()) is False
        assert 0.19 < time.perf_counter() - began < 0.5
        place = with_frame()
        waits = asyncio.ensure_future(turns.wait(place))
        await asyncio.sleep(0.15)
        place.put(b"newer")
        await asyncio.sleep(0.1)  # 0.25 s after the first, 0.1 after the second
        assert not waits.done()
        assert await waits is False

    asyncio.run(watch())


def test_what_an_image_takes_is_learnt_and_a_free_network_is_tried_again():
    async def watch() -> None:
        busy = 0
        turns = FrameTurns(0.1, lambda: busy)
        turns.each = 9.0  # a network that was slow once
        assert await turns.wait(with_frame())  # is tried when nothing is ahead
        for _ in range(80):
            with turns.measured():
                await asyncio.sleep(0.001)
        assert 0.001 <= turns.each < 0.02
        assert turns.interval(4) == 4 * turns.each
        busy = 1  # two share the time
        before = turns.each
        with turns.measured():
            time.sleep(0.04)
        assert turns.each == pytest.approx(0.9 * before + 0.1 * 0.02, rel=0.2)
        with pytest.raises(ValueError, match="no image"), turns.measured():
            raise ValueError("no image")
        assert turns.each == pytest.approx(0.9 * before + 0.1 * 0.02, rel=0.2)  # an error teaches nothing

    asyncio.run(watch())
