"""HAProxy in front of Ray Serve: who can use it, what belongs to one instance alone, and its own answers."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serve import haproxy

RAYS = """global
    log 127.0.0.1:514 local0 info
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
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
    """HAProxy as our wrapper starts it, with the lines of Ray's template that matter and no replica alive."""
    if reason := haproxy.refusal():
        pytest.skip(reason)
    (port,) = haproxy.free_ports(1)
    variables = haproxy.environment(tmp_path, haproxy.binary())
    (tmp_path / "haproxy.cfg").write_text(RAYS.format(port=port, **variables))
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


def test_two_instances_share_no_file_and_no_port(tmp_path: Path):
    one, other = (
        haproxy.environment(tmp_path / name, "/bin/true") for name in ("a", "b") if not (tmp_path / name).mkdir()
    )
    own = [key for key in one if key.endswith(("_PORT", "_PATH", "_LOC", "_BASE", "_FILE")) and "INGRESS" not in key]
    assert len(own) == 10
    assert {one[key] for key in own}.isdisjoint(other[key] for key in own)


@pytest.mark.parametrize("binary", ["/bin/false", "/nowhere/haproxy"])
def test_where_it_does_not_run_the_reason_is_told_and_serve_goes_on_without(
    binary: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", binary)
    before = dict(os.environ)
    haproxy.prepare("auto")
    assert dict(os.environ) == before
    assert f"slower than HAProxy: {binary} does not run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="proxy must be auto or serve on this machine, got haproxy: "):
        haproxy.prepare("haproxy")
