"""Orders to HAProxy's keeper: drain, and end."""

import contextlib
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serve.haproxy.front_control import FrontControl
from tests.serve.haproxy.conftest import Front, Fronts, wait


def refuses(front: Front) -> bool:
    """Whether a new request is answered by 503; one that is accepted waits, for all replicas are stopped."""
    with contextlib.suppress(httpx.TimeoutException):
        return httpx.post(front.url, content=b"x", timeout=1).status_code == 503
    return False


def test_what_was_accepted_is_answered_and_what_is_new_is_told_to_come_again(fronts: Fronts):
    front = fronts(replicas=2)
    front.launch()
    control = FrontControl(front.folder)
    with ThreadPoolExecutor(13) as pool:
        for replica in front.replicas:
            replica.send_signal(signal.SIGSTOP)
        asked = [pool.submit(front.ask, size) for size in [1000] * 10 + [1_000_000] * 2]
        wait(lambda: control.order(busy=True)["streams"] >= 12)
        drained = pool.submit(control.drain, 30)
        wait(lambda: refuses(front))
        for replica in front.replicas:
            replica.send_signal(signal.SIGCONT)
        assert {each.result().status_code for each in asked} == {200}
        assert drained.result() == 0
    refused = front.ask()
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert refused.headers["connection"] == "close"
    assert "the endpoint ends" in refused.json()["detail"]
    control.end()
    wait(lambda: not front.processes("haproxy"))
    assert front.folder.exists()  # Ray goes on: Serve may be started on it again


def test_what_does_not_end_in_time_is_counted(fronts: Fronts):
    front = fronts(replicas=1)
    front.launch()
    front.replicas[0].send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(front.ask)
        wait(lambda: FrontControl(front.folder).order(busy=True)["streams"] == 1)
        assert FrontControl(front.folder).drain(0.5) == 1
        front.replicas[0].send_signal(signal.SIGCONT)
        assert asked.result().status_code == 200


def test_where_nobody_keeps_haproxy_it_is_an_oserror(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        FrontControl(tmp_path).drain(1)
    FrontControl(tmp_path).end()
