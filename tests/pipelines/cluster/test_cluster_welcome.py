"""What a head says to a process with the right token, a wrong one or none; what other servers say."""

import http.server
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.cluster_welcome import Welcome, welcome


def test_a_head_with_a_token(ray_local: Any) -> None:
    info = ray_local.address_info
    right = Path(info["session_dir"]).parents[1].joinpath("token").read_text()
    assert welcome(info["gcs_address"], None) is Welcome.NOT
    assert welcome(info["gcs_address"], "0" * 64) is Welcome.NOT
    assert welcome(info["gcs_address"], right) is Welcome.BY_TOKEN


def test_other_servers_are_no_ray() -> None:
    handler = http.server.SimpleHTTPRequestHandler
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server, socket.create_server(("127.0.0.1", 0)) as silent:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert welcome(f"127.0.0.1:{server.server_port}", None, 2) is Welcome.NO_RAY
        server.shutdown()
        assert welcome(f"127.0.0.1:{silent.getsockname()[1]}", None, 1) is Welcome.NO_RAY, "it never answers"


def test_encrypted_heads_are_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert welcome("127.0.0.1:1", None) is Welcome.UNKNOWN
