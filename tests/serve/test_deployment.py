"""Waiting for an endpoint, signals that end it, and a registry that is away. The whole: jobs/test_deploy_best.py."""

import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serve.deploy_settings import Deploy
from serve.deployment import Follower, StopRequests, follow_once, follower, wait_until_ready
from serve.versions.traffic import Canary, Traffic, Verdict
from tests.serve.test_deploy_settings import free_port


@pytest.fixture
def readiness() -> Iterator[tuple[str, list[str]]]:
    """URL of a server whose /readyz gives the versions of a list in turn, the last for good; "" is a 503."""
    versions = ["", "4", "5"]

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            version = versions.pop(0) if len(versions) > 1 else versions[0]
            self.send_response(200 if version else 503)
            self.end_headers()
            self.wfile.write(json.dumps({"version": version}).encode())

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", versions
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_it_is_ready_when_the_version_answers_and_not_before(readiness: tuple[str, list[str]]):
    url, versions = readiness
    wait_until_ready(url, "5", seconds=20)
    assert versions == ["5"]
    with pytest.raises(TimeoutError, match=r"did not answer as version 6 within 0\.1 seconds"):
        wait_until_ready(url, "6", seconds=0.1)
    with pytest.raises(TimeoutError, match="/readyz did not answer"):
        wait_until_ready(f"http://127.0.0.1:{free_port()}", "5", seconds=0.1)


@pytest.fixture
def signals() -> Iterator[StopRequests]:
    """Signals heard, and those of before set again."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield StopRequests()
    for number, heard in before.items():
        signal.signal(number, heard)


def test_signals_at_once_are_one_request_and_a_later_one_is_another(signals: StopRequests):
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert signals.count == 1
    time.sleep(StopRequests.ONE + 0.1)
    os.kill(os.getpid(), signal.SIGTERM)
    assert signals.count == 2


def test_a_signal_that_the_caller_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    others = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        asked = StopRequests()
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked.count == 0
    finally:
        for number, heard in {signal.SIGHUP: before, **others}.items():
            signal.signal(number, heard)


def test_a_registry_that_is_away_is_told_once_and_again_when_the_reason_changes(capsys: pytest.CaptureFixture[str]):
    reasons = iter(["refused", "refused", "timed out", "refused"])

    def resolve() -> Traffic:
        raise OSError(next(reasons))

    watcher = Follower(resolve, lambda *_: None)
    for _ in range(4):
        assert follow_once(watcher, {"a": 1}) == {"a": 1}
    told = capsys.readouterr().err.splitlines()
    assert told == [f"the registry is not followed at the moment: {why}" for why in ("refused", "timed out", "refused")]


@pytest.mark.parametrize(
    ("given", "follows"),
    [({}, True), ({"model": "mine@best"}, True), ({"model": "mine/3"}, False), ({"checkpoint": "/c"}, False)],
)
def test_only_an_alias_is_followed(given: dict[str, Any], follows: bool):
    nothing: Callable[..., None] = lambda *_: None  # noqa: E731
    found = follower(Deploy(**given), lambda _: {}, nothing, nothing, lambda *_: "")
    assert (found is not None) == follows


def test_what_is_refused_is_told_and_noted_for_the_version_that_is_to_blame(capsys: pytest.CaptureFixture[str]):
    noted: list[tuple[str, str | None]] = []
    watcher = Follower(lambda: wanted, lambda *_: None, lambda version, why: noted.append((version, why)))
    wanted = Traffic.model_validate(
        {
            "stable": {"version": "1", "checkpoint": "/1"},
            "beside": [{"version": "2", "checkpoint": "/2", "percent": 10}],
        }
    )
    why = "version 2: its answers are no numbers"
    watcher.tell(wanted, why)
    watcher.tell(wanted, None)
    assert noted == [("2", why), ("1", None), ("2", None)]
    told = capsys.readouterr().err.splitlines()
    assert told == [f"not served, the old version stays: {why}", f"now answers {wanted.shown}"]


def verdict(good: bool | None) -> Verdict:
    return Verdict(good=good, sentence="", stable={}, canary={}, compared=0, agreement=None)


@pytest.mark.parametrize(
    ("story", "ends"),
    [
        ([(0, True), (59, True)], []),
        ([(0, True), (30, True), (60, True)], [True]),
        ([(0, None), (90, None), (100, True), (159, True)], []),  # without a verdict the time has not begun
        ([(0, True), (50, False)], [False]),
        ([(0, True), (50, None), (70, True), (120, True)], []),
        ([(0, True), (50, None), (70, True), (130, True)], [True]),
    ],
    ids=["not yet", "in time", "undecided", "bad", "interrupted", "and anew"],
)
def test_a_canary_takes_over_after_its_time_with_a_good_verdict_and_goes_by_a_bad_one(
    story: list[tuple[float, bool | None]], ends: list[bool]
):
    ended: list[bool] = []

    def end(version: str, promote: bool) -> str:
        assert version == "2"
        ended.append(promote)
        return "done"

    watcher = Follower(lambda: Traffic.model_validate({}), lambda *_: None, end=end)
    canary = Canary(version="2", checkpoint="/2", percent=10, promote_after=60)
    for now, good in story:
        watcher.decide(canary, verdict(good), now)
    assert ended == ends
    by_hand = Follower(lambda: Traffic.model_validate({}), lambda *_: None, end=end)
    for now, good in story:
        by_hand.decide(canary.model_copy(update={"promote_after": None}), verdict(good), now)
    assert ended == ends
