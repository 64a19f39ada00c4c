"""The screen of what runs: states from the last word of rank 0, and the nodes of a real Ray."""

import math
import time
from typing import Any

import pytest

from pipelines.progress import postings
from pipelines.progress.overview import Overview, OverviewOptions, overview, overview_text, state_of
from pipelines.progress.status import Status


def status(run: str, **fields: Any) -> Status:
    known: dict[str, Any] = {"phase": "training", "step": 250, "total": 1000, "epoch": 2.5, "epochs": 10, "loss": 1.5}
    known |= {"error": 42.0, "images_per_second": 1234.0, "seconds_left": 75.0, "machine": {}, "time": 1000.0}
    return Status.model_validate(known | {"run": run} | fields)


@pytest.mark.parametrize(
    ("phase", "reason", "age", "state"),
    [
        ("training", None, 1, "training"),
        ("evaluated", None, 59, "training"),
        ("training", None, 61, "silent"),
        ("done", None, 9999, "finished"),
        ("training", "lr is too high", 9999, "failed"),
    ],
)
def test_the_state_follows_from_the_last_word(phase: str, reason: str | None, age: float, state: str) -> None:
    seen = state_of(status("r", phase=phase), reason, 1000.0 + age)
    assert (seen.state, seen.age) == (state, age)
    assert (seen.images_per_second > 0) == (state == "training"), "what does not run has no speed"


def test_the_screen_says_how_far_how_fast_and_why_not() -> None:
    now = 1000.0
    seen = Overview(
        nodes=2,
        lost_nodes=1,
        resources={"CPU": 8, "GPU": 2},
        free={"CPU": 3, "GPU": 0},
        trainings=(
            state_of(status("one"), None, now),
            state_of(status("two"), None, now + 125),
            state_of(status("three", error=math.nan), "the loss is not finite", now),
            state_of(status("four", phase="done", step=1000), None, now + 3600),
        ),
    )
    first, _, header, *rows = overview_text(seen).splitlines()
    assert first == "2 nodes (1 lost), 3 of 8 CPUs free, 0 of 2 GPUs free"
    assert header.split() == ["training", "state", "step", "done", "error", "%", "img/s"]
    assert rows[0].split() == ["one", "training", "250", "of", "1,000", "25%", "42.00", "1,234", "0:01:15", "left"]
    assert rows[1].endswith("nothing heard for 0:02:05")
    assert rows[2].endswith("-      -  the loss is not finite")
    assert rows[3].endswith("1:00:00 ago")


def test_a_cluster_is_looked_at(ray_local: Any) -> None:
    names = [f"overview-{i}" for i in range(3)]
    for name in names:
        postings.forget(name)
    try:
        postings.post(status(names[0], time=time.time()))
        postings.post(status(names[1], time=time.time(), phase="done"))
        postings.post(status(names[2], time=time.time() - 2 * 86_400, phase="done"))
        postings.fail(names[1], "because")
        seen = overview(OverviewOptions())
        found = {t.run: t for t in seen.trainings if t.run in names}
        assert {run: t.state for run, t in found.items()} == {names[0]: "training", names[1]: "failed"}
        assert found[names[1]].reason == "because"
        assert names[2] in {t.run for t in overview(OverviewOptions(all=True)).trainings}
        assert (seen.nodes, seen.lost_nodes, seen.resources["CPU"]) == (1, 0, 4)
    finally:
        for name in names:
            postings.forget(name)
