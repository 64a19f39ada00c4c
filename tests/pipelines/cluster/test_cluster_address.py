"""RAY_ADDRESS as users set it: a cluster is used with the right token, all else is one sentence within seconds."""

import http.server
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import cluster_address
from pipelines.cluster.cluster_address import cluster_address as chosen
from pipelines.cluster.cluster_address import is_here, submission_address


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def other_server() -> Iterator[str]:
    """A web server that is no Ray."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_head(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No head that somebody has started on this machine, and no token of this user's own."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)


def note(folder: Path, address: str) -> None:
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(address)


@pytest.mark.parametrize("given", [None, "", "  ", "local"])
def test_without_a_cluster_a_job_starts_its_own(given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is not None:
        monkeypatch.setenv("RAY_ADDRESS", given)
    assert chosen() is None
    assert submission_address() is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("auto", "RAY_ADDRESS=auto asks for the Ray of this machine, and none was started here by `ray start`"),
        ("ray://10.0.0.5:10001", r"is a Ray client's, .*; submit the job: RAY_ADDRESS=http://10.0.0.5:8265 python"),
        ("10.0.0.5", "is no address of a cluster, which is HOST:PORT, e.g. 10.0.0.5:6379"),
        ("head:6379a", "is no address of a cluster"),
        (":6379", "is no address of a cluster"),
        ("127.0.0.1:99999", "is no address of a cluster"),
        ("127.0.0.1:1", r"does not answer \(connection refused\)"),
        ("no-such-host.invalid:6379", "names a host that is not known, no-such-host.invalid"),
    ],
)
def test_what_is_no_cluster_is_one_sentence(given: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    began = time.monotonic()
    with pytest.raises(ValueError, match=sentence) as caught:
        chosen()
    assert str(caught.value).startswith(f"RAY_ADDRESS={given} ")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 20


def test_a_host_that_swallows_packets_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """192.0.2.0/24 is kept for documentation (RFC 5737): nobody answers, or a router says at once that nobody does."""
    monkeypatch.setattr(cluster_address, "PATIENCE", 0.5)
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(ValueError, match=r"192\.0\.2\.1:6379 does not answer"):
        chosen()


def test_auto_beside_a_stale_note(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`ray stop` and a lost head leave the address behind; Ray tries it for a minute."""
    note(tmp_path, "127.0.0.1:1")
    assert chosen() is None, "a job that asks for nothing starts its own"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ValueError, match=r"the one at 127\.0\.0\.1:1 has ended; start one by `ray start --head`"):
        chosen()


def test_another_server_is_no_ray(other_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", other_server)
    began = time.monotonic()
    with pytest.raises(ValueError, match="what answers there is no Ray"):
        chosen()
    assert time.monotonic() - began < 20
    monkeypatch.setenv("RAY_ADDRESS", f"http://{other_server}")
    with pytest.raises(ValueError, match="what answers there is no Ray"):
        submission_address()
    with pytest.raises(ValueError, match=r"is where jobs are submitted: run this one as python -m pipelines\.cluster"):
        chosen()


@pytest.mark.parametrize("way", ["gcs_address", "webui_url"])
def test_the_token_that_a_cluster_asks_for(
    way: str, ray_local: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Found by itself where it lies at hand; else a sentence that says which variable to set."""
    address, ask = ray_local.address_info[way], chosen
    if way == "webui_url":
        while cluster_address._trouble(address, 1.0):  # on a busy machine the dashboard comes later than its Ray
            time.sleep(0.2)
        address, ask = f"http://{address}", submission_address
    right = Path(ray_local.address_info["session_dir"]).parents[1] / "token"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(cluster_address.ray_internals, "use_token", lambda: os.environ.update(RAY_AUTH_MODE="token"))

    with pytest.raises(ValueError, match=f"RAY_ADDRESS={address} asks for a token: set RAY_AUTH_TOKEN_PATH"):
        ask()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(ValueError, match="asks for another token than that of RAY_AUTH_TOKEN: set RAY_AUTH_TOKEN_PATH"):
        ask()
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ValueError, match="asks for a token, and RAY_AUTH_MODE=disabled is set here"):
        ask()
    monkeypatch.delenv("RAY_AUTH_MODE")

    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(right.read_text() + "\n")
    assert ask() == address
    assert os.environ["RAY_AUTH_MODE"] == "token"
    (tmp_path / ".ray" / "auth_token").unlink()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(right))
    assert ask() == address


def test_a_head_of_this_machine_is_here(ray_local: Any, other_server: str) -> None:
    """A tunnel ends on this machine too: what listens there is no Ray's."""
    for way in ("gcs_address", "webui_url"):
        assert is_here(ray_local.address_info[way])
    assert not is_here(other_server)
    assert not is_here("http://10.255.0.1:8265")


def test_the_address_that_a_head_wrote_down_is_read_as_ray_reads_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ray._private.utils import read_ray_address, write_ray_address

    for variable in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert cluster_address.noted_address() is None
        (tmp_path / variable / "ray").mkdir(parents=True)
        write_ray_address("127.0.0.1:6379")
        assert cluster_address.noted_address() == read_ray_address() == "127.0.0.1:6379"
        monkeypatch.delenv(variable)
