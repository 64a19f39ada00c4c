"""Progress on stderr: lines now and then where it is no terminal, and each new status handed on."""

import sys
import time
from typing import Any

import pytest

from pipelines.progress import console, postings
from pipelines.progress.console import Meter, Watch, meter, say


def test_a_meter_counts_and_prints_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with meter("shards", 1000, 200) as shown:
        for _ in range(8):
            shown.add(100)
    assert shown.done == 1000
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("shards  " + "━" * 24 + " 100%  1,000/1,000  ")
    assert lines[-1].endswith(" img/s  00:00:00 left")
    assert len(lines) == 1, "less than three seconds"


def test_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "LINE", 0.0)
    counter = Meter("verified", 4)
    for _ in range(3):
        time.sleep(0.001)
        counter.add(1)
    assert [line.split()[3] for line in capsys.readouterr().err.splitlines()] == ["1/4", "2/4", "3/4"]


def test_what_was_there_at_the_start_does_not_count_for_the_rate() -> None:
    counter = Meter("shards", 100, 50)
    assert counter.rate == 0
    assert counter.line().endswith("0 img/s  00:00:00 left"), "no speed, no forecast"
    counter.start -= 10
    counter.done = 60
    assert counter.rate == pytest.approx(1, rel=0.01)
    counter.total = 60 + 2 * 86_400 + 3661
    assert " 2 d 01:0" in counter.line()


def test_say_goes_to_the_person_and_not_into_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    say("a line")
    assert capsys.readouterr() == ("", "a line\n")


@pytest.mark.usefixtures("ray_local")
def test_a_watch_hands_each_status_on_and_tells_trouble_once(
    status: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "POLL", 0.01)
    postings.post(status("watched", 99))  # of an earlier try: nobody sees it
    seen: list[Any] = []

    def wait_for(step: int) -> None:
        deadline = time.monotonic() + 60
        while not (seen and seen[-1].step == step):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    with Watch("watched", seen.append):
        for step, fields in ((10, {}), (20, {"trouble": "disk full", "saved": "step-10"}), (30, {"saved": "step-30"})):
            postings.post(status("watched", step, **fields))
            wait_for(step)
        postings.post(status("watched", 100, saved="step-30"))
    assert sorted({found.step for found in seen}) == [10, 20, 30, 100], "the last one too"
    err = capsys.readouterr().err
    assert err.count("disk full; the last good one is step-10, the training goes on") == 1
    assert err.count("checkpoints are written again: step-30") == 1
    assert err.splitlines()[-1].startswith("watched  " + "━" * 24)


@pytest.mark.usefixtures("ray_local")
def test_a_watch_that_is_not_shown_prints_nothing(status: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    with Watch("quiet", seen.append, show=False):
        postings.post(status("quiet", 100, trouble="disk full"))
    assert [found.step for found in seen] == [100]
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("ray_local")
def test_on_a_terminal_the_newest_line_stays_and_what_is_said_stands_above(
    status: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "POLL", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's way to be told of a terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    with Watch("shown", lambda _: None):
        postings.post(status("shown", 10, trouble="disk full", saved="step-10"))
        time.sleep(0.5)
        postings.post(status("shown", 20, saved="step-20"))
    err = capsys.readouterr().err
    assert err.index("disk full") < err.index("checkpoints are written again") < err.rindex("shown  ")
    assert "…" in err.rpartition("shown  ")[2], "cut to the terminal's width"
