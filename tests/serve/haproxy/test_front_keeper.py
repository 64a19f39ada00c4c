"""HAProxy's keeper: what it starts again, what ends it, and that nothing of it stays."""

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serve.haproxy import front_keeper
from tests.serve.haproxy.conftest import Front, Fronts, wait


def answers(front: Front, size: int = 1000) -> bool:
    try:
        return front.ask(size).status_code == 200
    except httpx.TransportError:
        return False


def test_ray_sees_one_process_and_a_reload_loses_nothing(fronts: Fronts):
    front = fronts()
    first = front.launch()
    with ThreadPoolExecutor(4) as pool:
        done = threading.Event()

        def load() -> list[int]:
            codes = []
            with httpx.Client(timeout=60) as client:
                while not done.is_set():
                    codes.append(client.post(f"{front.url}/", content=b"x" * 1000).status_code)
            return codes

        clients = [pool.submit(load) for _ in range(4)]
        try:
            for _ in range(3):
                time.sleep(0.3)
                second = front.launch("-sf", first)
                assert second != first
                first = second
        finally:
            done.set()
        assert {code for client in clients for code in client.result()} == {200}


@pytest.mark.parametrize("which", ["front-", "large.cfg", "front_keeper"])
def test_what_is_killed_is_back_at_once(fronts: Fronts, which: str):
    front = fronts()
    front.launch()
    assert answers(front)
    assert answers(front, 1_000_000)
    (process,) = [each for each in front.processes(which) if "launcher" not in " ".join(each.cmdline())]
    process.kill()
    process.wait(10)
    # its replicas take 0.2 s for an answer; the machine of a test may be crowded
    assert wait(lambda: answers(front, 1_000_000)) < 5
    assert answers(front)


def test_the_end_of_ray_ends_all_and_removes_the_folder_with_the_token(
    fronts: Fronts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    token = tmp_path / "private" / "token"
    token.parent.mkdir()
    token.write_text("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    front = fronts()
    front.launch()
    front.raylet.kill()
    front.raylet.wait()
    assert wait(lambda: not front.processes("haproxy")) < 10
    wait(lambda: not front.folder.exists())
    assert not token.parent.exists()
    with socket.socket() as probe:  # the port is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", front.port))


def test_without_ray_s_actor_it_goes_on_and_the_next_actor_finds_it(fronts: Fronts):
    front = fronts()
    launcher = front.launch()
    os.kill(front.actor, signal.SIGKILL)
    assert answers(front)
    time.sleep(1.5)
    assert answers(front)
    assert f"Pid: {launcher}\n" in front.as_ray_asks("show info")


def test_where_serve_is_ended_on_a_ray_that_goes_on_the_port_is_free(fronts: Fronts):
    front = fronts(private=False)
    launcher = front.launch()
    os.kill(launcher, signal.SIGKILL)  # as Ray ends it: first this, then its actor
    wait(lambda: front.as_ray_asks("show info") == "")
    time.sleep(0.05)  # a call of Ray
    os.kill(front.actor, signal.SIGKILL)
    assert wait(lambda: not front.processes("front-")) < 10
    assert front.raylet.poll() is None
    assert front.config.exists()  # the folder is the cluster's


def test_a_killed_launcher_leaves_haproxy_and_ray_sees_that_it_is_gone(fronts: Fronts):
    front = fronts()
    launcher = front.launch()
    os.kill(launcher, signal.SIGKILL)
    wait(lambda: front.as_ray_asks("show info") == "")
    time.sleep(front_keeper.TOGETHER / 2)
    assert answers(front)
    front.launch()
    assert answers(front)


def test_signals_to_all_at_once_end_nothing(fronts: Fronts):
    front = fronts()
    front.launch()
    for process in front.processes("serve.haproxy"):
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            process.send_signal(name)
    (first,) = front.processes("front-")
    first.terminate()  # systemd's stop reaches HAProxy as well
    wait(lambda: answers(front))


def test_where_the_actor_is_killed_and_ray_kills_what_it_started_requests_go_on(fronts: Fronts):
    front = fronts()
    launcher = front.launch()
    os.kill(front.actor, signal.SIGKILL)
    time.sleep(0.1)
    os.kill(launcher, signal.SIGKILL)
    time.sleep(2.5)  # two looks
    assert answers(front)
    front.begin_actor()
    front.launch()
    assert answers(front)


def test_a_new_actor_that_knows_no_replicas_yet_takes_no_route_away(fronts: Fronts):
    front = fronts()
    first = front.launch()
    routes = front.config.read_text()
    front.config.write_text("".join(line for line in routes.splitlines(keepends=True) if "use_backend" not in line))
    os.kill(first, signal.SIGKILL)
    os.kill(front.actor, signal.SIGKILL)
    front.begin_actor()
    second = front.launch()
    assert answers(front)
    front.launch("-sf", second)  # the same actor once more: there is no application
    assert front.ask().status_code == 503
    front.config.write_text(routes)
    front.launch()
    assert answers(front)
