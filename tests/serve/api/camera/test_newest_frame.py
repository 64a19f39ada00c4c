"""The place for the newest frame."""

import asyncio

from serve.api.camera.newest_frame import NewestFrame


def test_a_newer_frame_takes_the_place_of_one_that_waits_and_is_counted():
    async def watch() -> None:
        place = NewestFrame()
        for data in (b"1", b"2", b"3"):
            place.put(data)
        await place.there()
        frame = place.take()
        assert (frame.number, frame.data, place.count, place.dropped) == (3, b"3", 3, 2)
        place.put(b"4")
        assert (place.take().number, place.dropped) == (4, 2)
        waiting = asyncio.ensure_future(place.there())
        await asyncio.sleep(0)
        assert not waiting.done()  # until there is one
        place.put(b"5")
        await asyncio.wait_for(waiting, 1)
        assert 0 <= place.take().age < 1

    asyncio.run(watch())
