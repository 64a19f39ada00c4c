"""Ray Data runs quietly, with patience, and its executor waits between two looks."""

from collections.abc import Iterator

import pytest
from ray.data.context import DataContext

from pipelines.cluster import data_execution, ray_internals
from pipelines.cluster.data_execution import QUICKEST, SLOWEST, BlockPace, settle


@pytest.fixture(autouse=True)
def _context_of_before() -> Iterator[None]:
    before = DataContext.get_current().copy()
    yield
    DataContext._set_current(before)


def test_the_context_of_this_thread_is_set_and_given() -> None:
    context = settle(123)
    assert context is DataContext.get_current()
    assert context.execution_no_progress_timeout_s == 123
    assert not context.enable_progress_bars
    assert not context.print_on_execution_start
    assert context.memory_usage_poll_interval_s is None


def test_the_pace_is_set_once_however_often_it_is_asked_for() -> None:
    slower = ray_internals.paced(data_execution.BLOCKS.seconds)
    others = [c for c in DataContext.get_current().custom_execution_callback_classes if c is not slower]
    settle(60)
    settle(60)
    context = settle(60)
    assert context.custom_execution_callback_classes == [*others, slower]


def test_without_private_names_there_is_no_pace_and_all_else_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(DataContext.get_current().custom_execution_callback_classes)
    monkeypatch.setenv(ray_internals.WITHOUT, "1")
    ray_internals.paced.cache_clear()
    try:
        context = settle(60)
    finally:
        ray_internals.paced.cache_clear()
    assert context.custom_execution_callback_classes == before
    assert context.execution_no_progress_timeout_s == 60


def test_an_executor_looks_twice_a_block_and_not_in_a_hurry_where_nothing_is_taken() -> None:
    pace, now = BlockPace(), 100.0
    assert pace.seconds(now) == SLOWEST
    pace.took_block(now)
    assert pace.seconds(now) == SLOWEST, "one block says nothing of the time to the next"
    for _ in range(40):
        pace.took_block(now := now + 0.02)
    assert pace.seconds(now) == pytest.approx(0.01)
    assert pace.seconds(now + 1) == SLOWEST
    for _ in range(40):
        pace.took_block(now := now + 0.001)
    assert pace.seconds(now) == QUICKEST
    for _ in range(40):
        pace.took_block(now := now + 0.3)
    assert pace.seconds(now) == pytest.approx(SLOWEST, rel=0.01)


def test_a_consumer_that_is_held_up_by_the_pace_alone_is_soon_as_fast_as_it_can_be() -> None:
    """A block a look, and no more: the pace quickens with what it lets through."""
    pace, now = BlockPace(), 0.0
    for _ in range(60):
        now += pace.seconds(now)
        pace.took_block(now)
    assert pace.seconds(now) == QUICKEST
