"""The progress table of a sweep, and its arithmetic."""

import io
from typing import Any

import pytest

from pipelines.progress import postings
from pipelines.progress.status import Status
from pipelines.progress.sweep_table import Board, Row, seconds_left


def status(run: str, step: int, speed: float, **fields: Any) -> Status:
    known: dict[str, Any] = {
        "phase": "training",
        "total": 100,
        "epoch": step / 10,
        "epochs": 10,
        "loss": 1.0,
        "error": 40.0,
    }
    return Status(**(known | {"run": run, "step": step, "images_per_second": speed, "seconds_left": 5.0} | fields))


def row(run: str, standing: str = "waiting", work: float = 1.0, **fields: Any) -> Row:
    return Row(run, work, 1000.0, standing, **fields)  # pyright: ignore


def test_time_left_is_that_of_the_last_trial_at_the_present_speed() -> None:
    running = [row("a", "running", status=status("a", 50, 10)), row("b", "running", status=status("b", 0, 10))]
    assert seconds_left(running, 2) == 100
    # twice the work is twice the time; it begins when a has ended, after 50 seconds
    assert seconds_left([*running, row("c", work=2.0)], 2) == 50 + 200
    assert seconds_left([*running, row("c", work=2.0)], 3) == 200
    assert seconds_left([*running, row("c", work=2.0), row("d")], 2) == 50 + 200
    assert seconds_left([row("c"), row("d", "finished")], 2) is None, "no trial has a speed yet"


def test_the_table_says_who_runs_who_failed_and_why() -> None:
    said: list[str] = []
    rows = {name: row(name) for name in ("one", "two", "three", "four")}
    board = Board("table6", rows, 2, write=said.append)
    board.stand("one", "finished")
    board.stand("two", "starting")
    rows["two"].take(status("two", 55, 1234, rows=({"top1_error": 33.3},)))
    board.stand("three", "failed", "the disk is full")
    text = board.text()
    assert text.splitlines()[0].startswith(
        "table6: 1 of 4 trials finished, 1 failed, 1 running, 1 waiting; about 0:00:0"
    )
    two = next(line for line in text.splitlines() if "two" in line)
    for part in ("training", "5.5 of 10", "40.00", "33.30", "1,234", "0:00:05 left"):
        assert part in two
    assert next(line for line in text.splitlines() if "three" in line).endswith("the disk is full")
    assert "four" not in text, "what waits is counted, not listed"


def test_the_table_of_a_terminal_has_every_trial() -> None:
    from rich.console import Console

    board = Board("table6", {name: row(name) for name in ("one", "two")}, 2)
    console = Console(width=100, file=io.StringIO())
    console.print(board.table())
    text = console.file.getvalue()  # pyright: ignore
    assert "validation error %" in text
    assert "one" in text
    assert "two" in text


def test_a_stopped_sweep_says_which_trainings_it_stopped(ray_local: Any) -> None:
    rows = {"halt-a": row("halt-a", "running"), "halt-b": row("halt-b"), "halt-c": row("halt-c", "finished")}
    with pytest.raises(KeyboardInterrupt), Board("halted", rows, 2, show=False):
        raise KeyboardInterrupt
    assert [name for name in rows if postings.was_stopped(name)] == ["halt-a"]
    told = [sentence for _, sentence in postings.posted_sweeps() if "halted" in sentence]
    assert told == ["ended: halted: 1 of 3 trials finished, 1 running, 1 waiting"]
    for name in rows:
        postings.forget(name)
