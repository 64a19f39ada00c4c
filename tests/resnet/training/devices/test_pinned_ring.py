"""A buffer is written again only when the copy from it is made."""

import threading

import numpy as np
import pytest
import torch

from resnet.training.devices.pinned_ring import PinnedRing


class Copy:
    """A copy that ends when it is told to, in place of a CUDA event."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def synchronize(self) -> None:
        assert self.ended.wait(10)


def test_buffers_come_in_turn_and_are_told_apart_from_other_arrays() -> None:
    ring = PinnedRing(3, (2, 4, 4, 3), pinned=False)
    taken = [ring.take() for _ in range(6)]
    assert [array.shape for array in taken] == [(2, 4, 4, 3)] * 6
    assert {array.dtype for array in taken} == {np.dtype(np.uint8)}
    assert len({array.ctypes.data for array in taken[:3]}) == 3
    assert [a.ctypes.data for a in taken[:3]] == [a.ctypes.data for a in taken[3:]]
    assert ring.holds(taken[0])
    assert ring.holds(taken[0][:2]), "a batch is the beginning of a buffer"
    assert not ring.holds(np.empty((2, 4, 4, 3), np.uint8))
    ring.is_copied(np.empty(1, np.uint8), Copy())  # of no buffer: nobody waits for it
    for _ in range(3):
        ring.take()


def test_who_takes_a_buffer_waits_for_the_copy_from_it_once() -> None:
    ring, copy = PinnedRing(2, (1,), pinned=False), Copy()
    first = ring.take()
    ring.is_copied(first, copy)
    ring.take()
    threading.Timer(0.05, copy.ended.set).start()
    assert ring.take().ctypes.data == first.ctypes.data
    assert copy.ended.is_set()
    copy.ended.clear()
    ring.take()
    ring.take()  # the copy is forgotten


@pytest.mark.gpu
def test_buffers_are_page_locked_and_numpy_sees_the_same_memory() -> None:
    ring = PinnedRing(2, (2, 8, 8, 3))
    array = ring.take()
    array[:] = 7
    tensor = torch.from_numpy(array)
    assert tensor.is_pinned()
    assert int(tensor.to("cuda", non_blocking=True).sum()) == 7 * array.size
