"""Tune takes as many trials as there is room for, also when nodes have joined."""

import pytest
from ray import tune
from ray.tune.search import BasicVariantGenerator

from pipelines.progress.sweep_table import Board
from pipelines.tuning import growing_slots
from pipelines.tuning.growing_slots import GrowingSlots


def test_trials_at_a_time_grow_with_the_cluster_and_never_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growing_slots, "EVERY", 0.0)
    board, room = Board("table6", {}, 2, show=False), [2]
    generator = BasicVariantGenerator(max_concurrent=2)
    generator.add_configurations({"sweep": {"run": lambda _: None, "config": {"x": tune.grid_search(list(range(9)))}}})
    callback = GrowingSlots(board, generator, lambda: room[0])

    def taken() -> int:
        """Trials that Tune gets until it is told to wait."""
        callback.on_step_begin(0, [])
        count = 0
        while generator.next_trial() is not None:
            count += 1
        return count

    assert (taken(), taken()) == (2, 0)
    room[0] = 5
    assert (taken(), board.slots) == (3, 5)
    room[0] = 1
    assert (taken(), board.slots) == (0, 5)
