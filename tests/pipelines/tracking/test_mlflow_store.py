"""MLflow's store as users have it: addresses that cannot be, servers that refuse, experiments that are deleted."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.tracking import mlflow_runs, mlflow_store, model_registry

URI = "MLFLOW_TRACKING_URI"


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("./mlruns", r"must be http\(s\)://HOST:PORT .*, got ./mlruns: MLflow 3 keeps no runs in folders"),
        ("file:///tmp/mlruns", "got file:///tmp/mlruns: MLflow 3 keeps no runs in folders"),
        ("foo://somewhere", r"must be http\(s\)://HOST:PORT .*, got foo://somewhere$"),
        ("sqlite:////tmp/100%.db", "no %, [?] or # in the path"),
        ("sqlite:////tmp/what?.db", "no %, [?] or # in the path"),
    ],
)
def test_an_address_that_mlflow_does_not_take_is_one_sentence_before_the_training(
    uri: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI, uri)
    with pytest.raises(ValueError, match=sentence):
        mlflow_runs.check_tracking()


def test_a_password_in_the_address_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "http://user:hunter2@mlflow.example:5000")
    with pytest.raises(ValueError, match="must hold no name and password") as found:
        mlflow_runs.check_tracking()
    assert "http://mlflow.example:5000" in str(found.value)
    assert "hunter2" not in str(found.value)
    monkeypatch.setenv(URI, "postgresql://user:hunter2@db.example/mlflow")
    assert "hunter2" not in mlflow_store.store_error(RuntimeError("cannot log in as user:hunter2@db.example"))


def test_a_relative_path_of_sqlite_means_the_same_file_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URI, "sqlite:///mlflow.db")
    assert mlflow_store.store_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_home_that_sqlite_cannot_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_HOME", str(tmp_path / "50%"))
    with pytest.raises(ValueError, match="RESNET_HOME must have no %"):
        mlflow_runs.check_tracking()


class Server:
    """An HTTP server that gives every request the same answer; `asked` are the headers of the last one."""

    def __init__(self, status: int, body: bytes) -> None:
        outer = self
        self.asked: dict[str, str] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked = dict(self.headers)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """answering(status, body) -> a server that MLFLOW_TRACKING_URI names."""
    servers = []

    def make(status: int, body: bytes) -> Server:
        servers.append(server := Server(status, body))
        monkeypatch.setenv(URI, server.uri)
        return server

    yield make
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (401, b"You are not authenticated.", r"refuses who asks \(401\): MLFLOW_TRACKING_USERNAME"),
        (403, b"Invalid Host header - possible DNS rebinding attack detected", r"\(403\): .* --allowed-hosts"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', r"refuses this \(403\): .*no"),
    ],
)
def test_a_server_that_refuses_ends_the_command_before_the_training(
    answering: Any, status: int, body: bytes, sentence: str
) -> None:
    answering(status, body)
    with pytest.raises(ValueError, match=sentence):
        mlflow_runs.check_tracking()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_told_and_the_training_goes_on(answering: Any, status: int) -> None:
    answering(status, b"later")
    assert f"cannot answer now ({status})" in str(mlflow_runs.check_tracking())


def test_a_server_that_is_down_is_told_and_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "http://127.0.0.1:9")
    assert mlflow_runs.check_tracking() == "MLflow at http://127.0.0.1:9 cannot be reached: connection refused"


def test_credentials_of_the_environment_are_sent(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    server = answering(200, b'{"experiment": {"lifecycle_stage": "active"}}')
    assert mlflow_runs.check_tracking() is None
    assert server.asked["Authorization"] == "Basic YWRhOmh1bnRlcjI="


def test_a_registry_that_refuses_is_told_as_such(answering: Any) -> None:
    answering(401, b"You are not authenticated.")
    with pytest.raises(ValueError, match=r"model resnet@champion cannot be looked up: .*\(401\)"):
        model_registry.resolve("resnet@champion")


def test_a_package_that_mlflow_misses_is_named_by_our_extra() -> None:
    missing = ModuleNotFoundError("No module named 'boto3'")
    assert mlflow_store.store_error(missing).endswith("pip install 'deep-residual-ray[s3]'")
