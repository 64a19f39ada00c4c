"""The five properties of the order of examples (docs: pipelines/stream/example_order.py)."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.stream.example_order import Order, default_window, evaluation_slice


def epoch_of(order: Order, epoch: int, world_size: int, step: int = 0) -> np.ndarray:
    """(steps, batch_size) examples of an epoch, rank after rank; an example is row group * 1000 + row."""
    ranks = []
    for rank in range(world_size):
        parts = [order.share(epoch, w, rank, world_size, skip) for w, skip in order.remaining(epoch, step)]
        ranks.append(np.concatenate([group * 1000 + row for group, row in parts]))
    return np.concatenate(ranks, axis=1)


sizes = st.builds(
    lambda full, count, short: (full,) * count + short,
    st.sampled_from([8, 32, 128]),
    st.integers(1, 40),
    st.lists(st.integers(1, 8), max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(sizes, st.sampled_from([8, 24, 64]), st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_every_example_comes_exactly_once_but_for_the_tail(
    rows: tuple[int, ...], batch: int, window: int, seed: int, epoch: int
) -> None:
    order = Order(rows, batch, window, seed)
    if order.steps_per_epoch == 0:
        return
    seen = epoch_of(order, epoch, 1).ravel()
    assert len(seen) == order.steps_per_epoch * batch == sum(rows) // batch * batch
    assert len(np.unique(seen)) == len(seen)
    valid = np.concatenate([group * 1000 + np.arange(n) for group, n in enumerate(rows)])
    assert np.isin(seen, valid).all()


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(1, 20), st.integers(0, 5), st.integers(0, 3))
def test_global_batches_do_not_depend_on_the_world_size(
    rows: tuple[int, ...], window: int, seed: int, epoch: int
) -> None:
    order = Order(rows, 24, window, seed)
    if order.steps_per_epoch == 0:
        return
    alone = epoch_of(order, epoch, 1)
    for world_size in (2, 3, 4, 8):
        np.testing.assert_array_equal(epoch_of(order, epoch, world_size), alone)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(1, 20), st.data())
def test_a_resume_at_any_step_goes_on_with_the_next_unseen_batch(
    rows: tuple[int, ...], window: int, data: st.DataObject
) -> None:
    order = Order(rows, 8, window, 1)
    step = data.draw(st.integers(0, order.steps_per_epoch - 1))
    np.testing.assert_array_equal(epoch_of(order, 2, 2, step), epoch_of(order, 2, 2)[step:])
    window_of_step, skip = order.remaining(2, step)[0]
    assert skip < max(1, int(order.rows[0]) * order.groups_per_window // 8), "at most one window is read again"
    assert order.first_steps(2)[window_of_step] <= step


def test_epochs_and_seeds_differ_and_repeat_exactly() -> None:
    order = Order((128,) * 20 + (50,), 128, 16, seed=7)
    first = epoch_of(order, 0, 1)
    np.testing.assert_array_equal(first, epoch_of(Order(order.rows, 128, 16, 7), 0, 1))
    assert (first != epoch_of(order, 1, 1)).mean() > 0.9
    assert (first != epoch_of(Order(order.rows, 128, 16, 8), 0, 1)).mean() > 0.9


def test_a_golden_order() -> None:
    order = Order((4, 4, 3), 4, 2, seed=0)
    assert epoch_of(order, 0, 1).tolist() == [[2002, 2001, 2, 0], [1003, 1001, 1002, 1000]]


def test_a_rank_reads_its_own_row_groups_only() -> None:
    """Aligned windows: each row group is read by one rank. The short ones at the end cost a few readings more."""
    order = Order((128,) * 160, 256, 16, seed=0)
    for world_size in (1, 2, 4, 8, 16):
        read = sum(
            len(np.unique(order.share(0, w, rank, world_size)[0]))
            for rank in range(world_size)
            for w, _ in order.remaining(0, 0)
        )
        assert read == 160


def row_groups_read(order: Order, world_size: int) -> int:
    return sum(
        len(np.unique(order.share(0, w, rank, world_size)[0]))
        for w, _ in order.remaining(0, 0)
        for rank in range(world_size)
    )


def test_a_window_grows_with_the_batch_so_that_workers_with_32_images_read_nothing_twice() -> None:
    """The paper's batch keeps its order; of a larger one each worker with 32 images has row groups of its own."""
    assert [default_window(batch) for batch in (64, 256, 512, 1024, 2048, 16_384)] == [16, 16, 16, 32, 64, 512]
    large = Order((128,) * 256, 4096, default_window(4096), seed=0)
    assert row_groups_read(large, 128) == 256
    small = Order((128,) * 64, 256, default_window(256), seed=0)
    assert [row_groups_read(small, ranks) for ranks in (16, 32, 64)] == [64, 128, 256]
    assert [small.readers(ranks) for ranks in (1, 16, 17, 32, 64)] == [1, 1, 2, 2, 4]
    assert row_groups_read(Order(small.rows, 256, 64, seed=0), 64) == 64


def test_shuffling_is_near_uniform() -> None:
    """The step at which an example comes is uniform over the epoch, and neighbours in the shards are torn apart.

    Over 400 epochs the mean step of an example has standard error s / 20 with s the std of a uniform step. If the order
    is uniform the largest of 2,560 such means deviates by less than 4.5 standard errors with probability
    1 - 2560 * 7e-6 = 0.98; the seeds are fixed, so this run is one draw. Two neighbours of a row group meet in a batch
    of their window with probability 1 / steps of a window; up to 1.5 times that is allowed.
    """
    order = Order((128,) * 20, 128, 10, seed=3)
    steps, epochs = order.steps_per_epoch, 400
    when = np.empty((epochs, 20 * 128), dtype=np.int16)
    for epoch in range(epochs):
        seen = epoch_of(order, epoch, 1)
        index = seen // 1000 * 128 + seen % 1000
        when[epoch, index.ravel()] = np.repeat(np.arange(steps), 128)
    s = np.sqrt((steps**2 - 1) / 12)
    deviation = np.abs(when.mean(axis=0) - (steps - 1) / 2) / (s / np.sqrt(epochs))
    assert deviation.max() < 4.5
    together = (when[:, :-1] == when[:, 1:]).mean()
    per_window = order.first_steps(0)[1]
    assert together < 1.5 / per_window


@settings(deadline=None)
@given(st.integers(0, 5000), st.integers(1, 64))
def test_evaluation_counts_every_example_once(examples: int, world_size: int) -> None:
    parts = [evaluation_slice(examples, rank, world_size) for rank in range(world_size)]
    assert [i for part in parts for i in part] == list(range(examples))
