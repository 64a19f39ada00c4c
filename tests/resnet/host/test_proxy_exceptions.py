"""Loopback is asked without the proxy that the environment names."""

import http.server
import os
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from resnet.host.proxy_exceptions import ask_directly

NAMES = ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


class Here(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on loopback, in an environment that sends everything to a proxy that is not there."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Here) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_proxy_is_not_asked_for_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="refused"):
        urllib.request.build_opener().open(url, timeout=5)  # urlopen would keep this proxy for all tests after
    monkeypatch.setenv("no_proxy", "")  # undone after the test
    monkeypatch.setenv("NO_PROXY", "")
    ask_directly()
    assert urllib.request.build_opener().open(url, timeout=5).status == 204


def test_what_a_person_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    ask_directly()
    assert "no_proxy" not in os.environ
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", ".example.org, 127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "")
    ask_directly("10.0.0.5")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == ".example.org,127.0.0.1,localhost,::1,10.0.0.5"
    monkeypatch.setenv("no_proxy", "*")
    ask_directly("10.0.0.6")
    assert os.environ["no_proxy"] == "*"
