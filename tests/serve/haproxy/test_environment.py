"""HAProxy in front of Ray Serve: who can use it, what belongs to one instance alone, and its own answers."""

import concurrent.futures
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from serve.haproxy import environment

RAYS = """global
    log 127.0.0.1:514 local0 info
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    option redispatch 1
    errorfile 502 /somewhere/500.http
    errorfile 503 /somewhere/500.http
    errorfile 504 /somewhere/500.http
frontend prometheus
    bind :{RAY_SERVE_HAPROXY_METRICS_PORT}
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    server dead 127.0.0.1:9 check
listen stats
  bind *:{RAY_SERVE_HAPROXY_STATS_PORT}
  stats enable
  stats uri /stats
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """HAProxy without a replica that is alive."""
    with haproxy(tmp_path) as port:
        yield port


@contextlib.contextmanager
def haproxy(tmp_path: Path, replica: str = "127.0.0.1:9", trusted: tuple[str, ...] = ()) -> Iterator[int]:
    """The port of HAProxy as our wrapper starts it, with the lines of Ray's template that matter."""
    if reason := environment.refusal():
        pytest.skip(reason)
    (port,) = environment.free_ports(1)
    variables = environment.environment(tmp_path, environment.binary(), timeout=0.4, trusted=trusted)
    (tmp_path / "haproxy.cfg").write_text(RAYS.replace("127.0.0.1:9 ", f"{replica} ").format(port=port, **variables))
    command = [variables["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(tmp_path / "haproxy.cfg")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (listening := psutil.Process(process.pid).net_connections()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {place.laddr.ip for place in listening} == {"127.0.0.1"}
    assert len(listening) >= 3
    yield port
    process.kill()
    process.wait()


def test_without_a_replica_the_answer_is_problem_details_on_loopback(port: int):
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/predict", content=b"an image")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["status"] == 503


class Echo(BaseHTTPRequestHandler):
    """A replica that answers with the headers that it got."""

    def do_POST(self) -> None:
        told = {name: self.headers.get_all(name, []) for name in ("X-Request-ID", "X-Forwarded-For")}
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


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
def test_a_client_is_who_it_is_and_an_unfit_id_does_not_reach_the_replica(
    tmp_path: Path, trusted: tuple[str, ...], sent: list[str], client: str
):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    forwarded = [("X-Forwarded-For", value) for value in sent]
    try:
        with haproxy(tmp_path, f"127.0.0.1:{server.server_port}", trusted) as port:
            for ids, kept in (
                (["mine-1"], ["mine-1"]),
                (["a/b:c=d.e_f+1"], ["a/b:c=d.e_f+1"]),
                (["x" * 129], []),
                (['"quoted"'], []),
                (["two words"], []),
                (["one", "two"], []),
                (["one,two"], []),
                ([], []),
            ):
                headers = [*forwarded, *(("X-Request-ID", value) for value in ids)]
                told = httpx.post(f"http://127.0.0.1:{port}/", content=b"x", headers=headers).json()
                assert told == {"X-Request-ID": kept, "X-Forwarded-For": [client]}, ids
    finally:
        server.shutdown()
        server.server_close()


def test_a_body_that_comes_too_slowly_is_answered_by_408(port: int):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\na")
        head, _, told = b"".join(iter(lambda: client.recv(4096), b"")).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 408 ")
    assert "application/problem+json" in head
    assert json.loads(told)["detail"] == "the body must arrive within 0.4 seconds"


def test_two_instances_share_no_file_and_no_port(tmp_path: Path):
    one, other = (
        environment.environment(tmp_path / name, "/bin/true") for name in ("a", "b") if not (tmp_path / name).mkdir()
    )
    own = [key for key in one if key.endswith(("_PORT", "_PATH", "_LOC", "_BASE", "_FILE")) and "INGRESS" not in key]
    assert len(own) == 10
    assert {one[key] for key in own}.isdisjoint(other[key] for key in own)


def test_the_files_and_variables_for_a_cluster_s_nodes(tmp_path: Path):
    if reason := environment.refusal():
        pytest.skip(reason)
    command = [sys.executable, "-m", "serve.haproxy", str(tmp_path / "files")]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    script = f'{told}\nexec "$RAY_SERVE_HAPROXY_BINARY_PATH" -c -f {tmp_path}/haproxy.cfg'
    (tmp_path / "haproxy.cfg").write_text(
        RAYS.format(port=8000, RAY_SERVE_HAPROXY_STATS_PORT=8404, RAY_SERVE_HAPROXY_METRICS_PORT=9101)
    )
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)
    config = (tmp_path / "haproxy.cfg").read_text()
    assert "bind 127.0.0.1:8404" in config
    assert "option http-buffer-request" in config


@pytest.mark.parametrize("binary", ["/bin/false", "/nowhere/haproxy"])
def test_where_it_does_not_run_the_reason_is_told_and_serve_goes_on_without(
    binary: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", binary)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "what was there")
    before = dict(os.environ)
    environment.use_haproxy("auto")
    # uvicorn would believe any client of this machine who it is
    assert dict(os.environ) == before | {"FORWARDED_ALLOW_IPS": environment.NOBODY}
    assert f"slower than HAProxy: {binary} does not run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="proxy must be auto or serve on this machine, got haproxy: "):
        environment.use_haproxy("haproxy")


REPLICA = """
import asyncio, sys
async def answer(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode().lower()
            assert "x-forwarded-for: 127.0.0.1" in head  # uvicorn takes the client's address from it
            size = int(head.split("content-length:")[1].split()[0])
            await reader.readexactly(size)
            print(size, flush=True)
            await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]), limit=2**23) as server:
        await server.serve_forever()
asyncio.run(main())
"""
POOL = """
global
    tune.bufsize {RAY_SERVE_HAPROXY_TUNE_BUFSIZE}
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option redispatch 1
    retries {RAY_SERVE_HAPROXY_RETRIES}
    retry-on {RAY_SERVE_HAPROXY_RETRY_ON}
frontend http_frontend
    bind 127.0.0.1:{front}
    default_backend replicas
backend replicas
    balance leastconn
    http-reuse always
    server one 127.0.0.1:{one} check observe layer4 error-limit 3 on-error mark-down
    server two 127.0.0.1:{two} check observe layer4 error-limit 3 on-error mark-down
"""


@pytest.mark.parametrize("size", [280_000, 295_000, 16 * 2**20])
def test_more_than_there_is_room_for_waits_and_a_killed_replica_is_not_seen(size: int, tmp_path: Path):
    if reason := environment.refusal():
        pytest.skip(reason)
    front, one, two = environment.free_ports(3)
    variables = environment.environment(tmp_path, environment.binary(), most=4)
    (tmp_path / "haproxy.cfg").write_text(POOL.format(front=front, one=one, two=two, **variables))
    replicas = [
        subprocess.Popen([sys.executable, "-c", REPLICA, str(port)], stdout=subprocess.PIPE, text=True)
        for port in (one, two)
    ]
    deadline = time.monotonic() + 30
    for port in (one, two):  # before HAProxy looks: it would leave out who is late
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.05)
    command = [variables["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(tmp_path / "haproxy.cfg")]
    proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    client = httpx.Client(timeout=60)

    def body(size: int) -> Iterator[bytes]:
        time.sleep(0.03)  # head and body are two writes of most clients
        yield b"x" * size

    def ask(size: int) -> int:
        headers = {"Content-Length": str(size)}
        return client.post(f"http://127.0.0.1:{front}/", content=body(size), headers=headers).status_code

    def ready() -> bool:
        try:
            return ask(1) == 200
        except httpx.TransportError:
            return False

    try:
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.1)
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            assert set(pool.map(ask, [1000] * 24)) == {200}  # places for eight
            asked = [pool.submit(ask, size) for _ in range(6)]
            assert replicas[0].stdout
            next(line for line in replicas[0].stdout if line == f"{size}\n")
            replicas[0].kill()  # with a request in it, complete and not yet answered
            assert {one.result() for one in asked} == {200}
            assert set(pool.map(ask, [1000] * 8)) == {200}
    finally:
        client.close()
        for process in (proxy, *replicas):
            process.kill()
            process.wait()
