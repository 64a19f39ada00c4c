"""HAProxy in front of Ray Serve: who can use it, what belongs to one instance alone, and its own answers."""

import concurrent.futures
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serve.haproxy import environment
from tests.serve.haproxy.conftest import Fronts, rays_file


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
    (tmp_path / "haproxy.cfg").write_text(rays_file(tmp_path, 8000, [8001]))
    subprocess.run(["sh", "-c", script], check=True, capture_output=True)
    config = (tmp_path / "files" / "checked.cfg").read_text()
    assert "bind 127.0.0.1:8404" in config
    assert "bind 127.0.0.1:8000" in config


@pytest.mark.parametrize("binary", ["/bin/false", "/nowhere/haproxy"])
def test_where_it_does_not_run_the_reason_is_told_and_serve_goes_on_without(
    binary: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", binary)
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "what was there")
    before = dict(os.environ)
    environment.use_haproxy("auto")
    assert dict(os.environ) == before | {"FORWARDED_ALLOW_IPS": environment.NOBODY}
    assert f"slower than HAProxy: {binary} does not run" in capsys.readouterr().err
    with pytest.raises(ValueError, match="proxy must be auto or serve on this machine, got haproxy: "):
        environment.use_haproxy("haproxy")


@pytest.mark.parametrize("size", [280_000, 295_000, 16 * 2**20])
def test_more_than_there_is_room_for_waits_and_a_killed_replica_is_not_seen(size: int, fronts: Fronts):
    front = fronts(most=4)
    front.launch()
    client = httpx.Client(timeout=60)

    def body(size: int) -> Iterator[bytes]:
        time.sleep(0.03)  # head and body are two writes of most clients
        yield b"x" * size

    def ask(size: int) -> int:
        headers = {"Content-Length": str(size)}
        return client.post(front.url, content=body(size), headers=headers).status_code

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        assert set(pool.map(ask, [1000] * 24)) == {200}  # places for eight
        asked = [pool.submit(ask, size) for _ in range(6)]
        assert front.replicas[0].stdout
        next(line for line in front.replicas[0].stdout if line.startswith(f"{size} "))
        front.replicas[0].kill()  # with a request in it, complete and not yet answered
        assert {one.result() for one in asked} == {200}
        assert set(pool.map(ask, [1000] * 8)) == {200}
    client.close()


def test_a_body_without_a_declared_length_comes_through_whatever_its_size(fronts: Fronts):
    front = fronts(replicas=1)
    front.launch()
    for size in (10, 200_000, 1_000_000):
        answer = httpx.post(front.url, content=iter([b"x" * size]), timeout=60)
        assert answer.status_code == 200
        assert front.replicas[0].stdout
        assert front.replicas[0].stdout.readline().startswith(f"{size} ")


def test_a_job_within_a_job_has_haproxy_itself_and_not_the_others_wrapper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = environment.write_files(tmp_path, "/opt/haproxy")
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", str(wrapper))
    assert environment.binary() == "/opt/haproxy"
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/opt/another")
    assert environment.binary() == "/opt/another"
