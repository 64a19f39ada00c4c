"""Ray Data runs quietly, with patience, and its executor waits between two looks."""

from collections.abc import Iterator

import pytest
from ray.data.context import DataContext

from pipelines.cluster import ray_internals
from pipelines.cluster.data_execution import settle


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
    others = [c for c in DataContext.get_current().custom_execution_callback_classes if c is not ray_internals.paced()]
    settle(60)
    settle(60)
    context = settle(60)
    assert context.custom_execution_callback_classes == [*others, ray_internals.paced()]


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
