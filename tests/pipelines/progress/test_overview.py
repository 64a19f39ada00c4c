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
        ("done", "the disk is full", 1, "failed"),
    ],
)
def test_the_state_follows_from_the_last_word(phase: str, reason: str | None, age: float, state: str) -> None:
    seen = state_of(status("r", phase=phase), reason, 1000.0 + age)
    assert (seen.state, seen.age) == (state, age)
    assert (seen.images_per_second > 0) == (state == "training"), "what does not run has no speed"


@pytest.mark.parametrize(("phase", "state"), [("training", "stopped"), ("done", "finished")])
def test_a_training_that_was_asked_to_end_is_not_silent(phase: str, state: str) -> None:
    assert state_of(status("r", phase=phase), None, 9000.0, stopped=True).state == state


def test_the_screen_says_how_far_how_fast_and_why_not() -> None:
    now = 1000.0
    seen = Overview(
        nodes=2,
        lost_nodes=1,
        resources={"CPU": 8, "GPU": 2},
        free={"CPU": 3, "GPU": 0},
        trainings=(
            state_of(
                status("one", trouble="the bucket is away"), None, now, [*["node-1", "node-2", "node-2"], "a", "b"]
            ),
            state_of(status("eval", phase="evaluating, 20%"), None, now, ["node-1"]),
            state_of(status("two"), None, now + 125),
            state_of(status("three", error=math.nan), "the loss is not finite", now),
            state_of(status("off", saved="step-00000200"), None, now + 60, stopped=True),
            state_of(status("four", phase="done", step=1000), None, now + 3600),
        ),
        sweeps=("table6: 1 of 4 trials finished, 2 running",),
    )
    first, sweep, _, header, one, evaluated, two, three, off, four = overview_text(seen).splitlines()
    assert first == "2 nodes (1 lost), 3 of 8 CPUs free, 0 of 2 GPUs free"
    assert sweep == "table6: 1 of 4 trials finished, 2 running"
    assert header.split() == ["training", "state", "step", "done", "error", "%", "img/s", "on"]
    words = ["one", "training", "250", "of", "1,000", "25%", "42.00", "1,234"]
    assert one.split()[:8] == words
    assert one.endswith("node-1, 2 x node-2, a and 1 more  0:01:15 left; the bucket is away")
    assert evaluated.split()[:3] == ["eval", "evaluating,", "20%"]
    assert evaluated.split()[-3:] == ["node-1", "0:01:15", "left"]
    assert two.endswith("nothing heard for 0:02:05")
    assert three.split()[-7:] == ["-", "-", "the", "loss", "is", "not", "finite"]
    assert off.split()[:2] == ["off", "stopped"]
    assert off.endswith("0:01:00 ago, saved: step-00000200")
    assert four.endswith("1:00:00 ago")


def test_a_cluster_is_looked_at(ray_local: Any) -> None:
    names = [f"overview-{i}" for i in range(4)]
    for name in names:
        postings.forget(name)
    try:
        postings.post(status(names[0], time=time.time()))
        postings.post(status(names[1], time=time.time(), phase="done"))
        postings.post(status(names[2], time=time.time() - 2 * 86_400, phase="done"))
        postings.fail(names[1], "because")
        postings.post(status(names[3], time=time.time()))
        postings.note_stop(names[3])
        postings.post_sweep("overview", "overview: 1 of 2 trials finished")
        seen = overview(OverviewOptions())
        found = {t.run: t for t in seen.trainings if t.run in names}
        assert {run: t.state for run, t in found.items()} == {
            names[0]: "training",
            names[1]: "failed",
            names[3]: "stopped",
        }
        assert "overview: 1 of 2 trials finished" in seen.sweeps
        assert found[names[1]].reason == "because"
        assert names[2] in {t.run for t in overview(OverviewOptions(all=True)).trainings}
        assert (seen.nodes, seen.lost_nodes, seen.resources["CPU"]) == (1, 0, 4)
    finally:
        for name in names:
            postings.forget(name)
