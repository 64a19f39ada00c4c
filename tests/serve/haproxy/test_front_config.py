"""Ray's configuration made into ours: what listens, who may ask, what a stranger can hold, what is answered."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from serve.haproxy import environment
from serve.haproxy.front_config import PLACES, FrontSettings, front_config
from tests.serve.haproxy.conftest import Front, Fronts, wait

GENERATE = """
import sys
from ray.serve._private import haproxy
from ray.serve.config import HTTPOptions
folder, routes = sys.argv[1:]
config = haproxy.HAProxyConfig(
    http_options=HTTPOptions(host="127.0.0.1", port=18777), is_head=True, socket_path=f"{folder}/admin.sock",
    server_state_base=folder, server_state_file=f"{folder}/server-state")
server = haproxy.ServerConfig(name="one", host="127.0.0.1", port=18778)
backend = haproxy.BackendConfig(name="http-resnet", path_prefix="/", app_name="resnet", servers=[server],
    fallback_server=haproxy.ServerConfig(name="other", host="127.0.0.1", port=18780))
api = haproxy.HAProxyApi(cfg=config, backend_configs={}, config_file_path=f"{folder}/haproxy.cfg")
api.set_backend_configs({"http-resnet": backend} if routes == "routes" else {})
api._generate_config_file_internal()
"""


def settings(folder: Path, **more: object) -> FrontSettings:
    fields = {"folder": str(folder), "binary": environment.binary(), "buffer": 327680, "largest": 2**24, "hot": 2**26}
    words = {"retry_on": "conn-failure", "retries": "3", "timeout": 30.0}
    return FrontSettings(**fields | words | more)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("routes", ["routes", "none"])
def test_what_the_installed_ray_writes_becomes_a_valid_configuration(routes: str, tmp_path: Path):
    if reason := environment.refusal():
        pytest.skip(reason)
    variables = environment.SETTINGS | {"PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", GENERATE, str(tmp_path), routes]
    without = {name: value for name, value in os.environ.items() if not name.startswith("RAY_SERVE_")}  # of other tests
    subprocess.run(command, check=True, capture_output=True, env=without | variables)
    (tmp_path / "keys.lst").write_text("AB\n")
    for more in ({}, {"private": True, "keys": "/keys", "trusted": ("10.0.0.0/8",), "host": "::", "log": "/log"}):
        front = settings(tmp_path, **more)
        for closing in (False, True):
            text = front_config((tmp_path / "haproxy.cfg").read_text(), front, f"{tmp_path}/own.sock", closing)
            (tmp_path / "own.cfg").write_text(text)
            check = [front.binary, "-c", "-f", str(tmp_path / "own.cfg")]
            done = subprocess.run(check, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert "WARNING" not in done.stderr
            lines = [line.strip() for line in text.splitlines()]
            assert f"stats socket {tmp_path}/own.sock mode 600 level admin expose-fd listeners" in lines
            assert not [line for line in lines if line.startswith("errorfile") or "mode 666" in line]
            binds = {line for line in lines if line.startswith("bind ") and "unix@" not in line}
            own = {"bind [::]:18777"} if more else {"bind 127.0.0.1:18777"}
            assert binds == (own if more else own | {"bind 127.0.0.1:9101", "bind 127.0.0.1:8404"})
            servers = [line for line in lines if line.startswith("server one ")]
            assert len(servers) == (routes == "routes")
            assert all(line.endswith("maxconn 128") for line in servers)


def problem(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["request_id"] == answer.headers["x-request-id"] != ""
    return told


def test_answers_of_haproxy_are_problem_details_with_the_id(fronts: Fronts):
    front = fronts(replicas=0, timeout=0.4)
    front.launch()
    told = problem(front.ask(headers={"X-Request-ID": "mine-1"}), 503)
    assert told["request_id"] == "mine-1"
    assert front.ask().headers["retry-after"] == "1"
    front.config.write_text("".join(_without_routes(front)))
    front.launch("-sf", 1)
    assert "no replica answers" in str(problem(front.ask(), 503)["detail"])
    with socket.create_connection(("127.0.0.1", front.port), timeout=30) as client:
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\na")
        head, _, told = b"".join(iter(lambda: client.recv(4096), b"")).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 408 ")
    assert json.loads(told)["detail"] == "the body must arrive within 0.4 seconds"


def _without_routes(front: Front) -> Iterator[str]:
    """Ray's file where no application is deployed."""
    for line in front.config.read_text().splitlines(keepends=True):
        if "use_backend" not in line and "acl is_" not in line:
            yield line


def test_ids_that_are_fit_are_kept_and_others_replaced_everywhere(fronts: Fronts):
    front = fronts(replicas=1)
    front.launch()
    trace = ("traceparent", "00-0af7651916cd43dd-b7ad6b71-01")
    for ids in (
        ["mine-1"],
        ["a/b:c=d.e_f+1"],
        ["x" * 129],
        ['"quoted"'],
        ["two words"],
        ["one", "two"],
        ["one,two"],
        [],
    ):
        answer = front.ask(headers=[trace, *(("X-Request-ID", each) for each in ids)])
        assert answer.status_code == 200
        assert front.replicas[0].stdout is not None
        seen = front.replicas[0].stdout.readline()
        assert f"x-request-id: {answer.headers['x-request-id']}\\r" in seen.lower()
        assert "traceparent: 00-0af7651916cd43dd-b7ad6b71-01\\r" in seen
        fit = ids in (["mine-1"], ["a/b:c=d.e_f+1"])
        assert ([answer.headers["x-request-id"]] == ids) == fit


@pytest.mark.parametrize(
    ("trusted", "sent", "client"),
    [
        ((), ["10.1.2.3"], "127.0.0.1"),  # a client that says who it is
        ((), ["10.1.2.3", "10.9.9.9"], "127.0.0.1"),
        (("10.0.0.0/8",), ["10.1.2.3"], "127.0.0.1"),  # not from there
        (("127.0.0.1", "10.0.0.0/8"), ["10.1.2.3"], "10.1.2.3"),  # a proxy that is trusted
        (("127.0.0.1",), ["made up, 192.0.2.7"], "192.0.2.7"),  # its client said who it is
        (("127.0.0.1",), [], "127.0.0.1"),
    ],
)
def test_a_client_is_who_it_is(fronts: Fronts, trusted: tuple[str, ...], sent: list[str], client: str):
    front = fronts(replicas=1, trusted=trusted)
    front.launch()
    for size in (10, 1_000_000):
        front.ask(size, headers=[("X-Forwarded-For", value) for value in sent])
        assert front.replicas[0].stdout is not None
        seen = front.replicas[0].stdout.readline().lower()
        assert f"x-forwarded-for: {client}\\r" in seen
        assert seen.count("x-forwarded-for") == 1


def sending(front: Front, head: str = "", size: int = 10_000_000, sent: int = 600_000) -> socket.socket:
    """A client that sends a part of what it promises."""
    client = socket.create_connection(("127.0.0.1", front.port), timeout=30)
    lines = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n{head}\r\n"
    client.sendall(lines.encode())
    client.settimeout(0.5)
    with contextlib.suppress(OSError):  # it was refused, and nobody reads on
        client.sendall(b"x" * sent)
    return client


def test_a_key_is_asked_for_before_the_body(fronts: Fronts, tmp_path: Path):
    (tmp_path / "keys").write_text("bob 0123456789abcdef\n")
    front = fronts(keys=str(tmp_path / "keys"))
    front.launch()
    with ThreadPoolExecutor(70) as pool:
        strangers = list(pool.map(lambda _: sending(front), range(70)))
        told = strangers[0].recv(65536).decode()
        assert told.startswith("HTTP/1.1 401 ")
        assert "www-authenticate: Bearer\r\n" in told
        assert "a key is needed" in told
        began = time.monotonic()
        assert front.ask(1_000_000, headers={"X-API-Key": "0123456789abcdef"}).status_code == 200
        assert time.monotonic() - began < 5
        for stranger in strangers:
            stranger.close()
    assert "the key is not known" in str(problem(front.ask(headers={"X-API-Key": "wrong"}), 401)["detail"])
    assert front.ask(headers={"Authorization": "bearer 0123456789abcdef"}).status_code == 200
    # the last one is a WebSocket: a browser's key comes otherwise, and the replica asks for it before it accepts
    for path in ("/healthz", "/readyz", "/", "/v2/health/ready", "/v1/stream"):
        assert httpx.get(f"{front.url}{path}", timeout=30).status_code == 200
    assert httpx.get(f"{front.url}/v1/model", timeout=30).status_code == 401
    assert httpx.options(f"{front.url}/v1/predict", timeout=30).status_code == 200


def test_one_client_cannot_hold_the_way_of_large_bodies(fronts: Fronts):
    front = fronts(trusted=("127.0.0.1",))
    front.launch()
    with ThreadPoolExecutor(70) as pool:
        greedy = list(pool.map(lambda _: sending(front, "X-Forwarded-For: 9.9.9.9\r\n", sent=0), range(70)))
        wait(lambda: len(select.select(greedy, [], [], 0)[0]) == 70 - PLACES // 2)  # who has an answer already
        refused = select.select(greedy, [], [], 0)[0]
        assert all(each.recv(65536).startswith(b"HTTP/1.1 429 ") for each in refused)
        began = time.monotonic()
        assert front.ask(1_000_000, headers={"X-Forwarded-For": "8.8.8.8"}).status_code == 200
        assert time.monotonic() - began < 5
        for each in greedy:
            each.close()


@pytest.mark.slow
def test_a_stopped_replica_is_passed_over_and_what_it_held_goes_to_another(fronts: Fronts):
    front = fronts(timeout=30.0)
    front.launch()
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(front.ask) for _ in range(8)]
        time.sleep(0.1)
        front.replicas[0].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        assert {each.result().status_code for each in asked} == {200}
        assert time.monotonic() - began < 25  # two looks, and the answer; not the 35 s until it is given up
        began = time.monotonic()
        assert {each.status_code for each in pool.map(lambda _: front.ask(), range(8))} == {200}
        assert time.monotonic() - began < 5


def test_where_all_replicas_are_stopped_the_answer_is_an_error_in_time(fronts: Fronts):
    front = fronts(replicas=1, timeout=1.0)
    front.launch()
    front.replicas[0].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert front.ask().status_code in (503, 504)
    assert time.monotonic() - began < 25


def test_nothing_listens_but_what_was_asked(fronts: Fronts):
    front = fronts(replicas=1, host="0.0.0.0")
    front.launch()
    found = [c for each in front.processes("front-") + front.processes("large.cfg") for c in each.net_connections()]
    listening = {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}
    assert listening == {("0.0.0.0", front.port)}
    modes = {path.name: path.stat().st_mode & 0o077 for path in front.folder.glob("*.sock")}
    assert set(modes.values()) == {0}, modes


def test_what_no_replica_saw_is_a_line_of_json(fronts: Fronts, tmp_path: Path):
    (tmp_path / "keys").write_text("bob 0123456789abcdef\n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(path := f"/tmp/rst-log-{os.getpid()}.sock")
        try:
            log.settimeout(30)
            front = fronts(keys=str(tmp_path / "keys"), log=path)
            front.launch()
            refused = httpx.post(f'{front.url}/v1/"predict', timeout=30)
            line = json.loads(log.recv(9000))
            front.ask(headers={"X-API-Key": "0123456789abcdef"})
            log.settimeout(0.5)
            with pytest.raises(TimeoutError):
                log.recv(9000)
        finally:
            os.unlink(path)
    assert (line["status"], line["path"], line["method"]) == (401, "/v1/%22predict", "POST")
    assert line["request_id"] == refused.headers["x-request-id"]
    assert line["client"] == "127.0.0.1"
