"""MLflow's store as users have it: addresses that cannot be, servers that refuse, experiments that are deleted."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines import mlflow_store, tracking

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
        tracking.look()


def test_a_password_in_the_address_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "http://user:hunter2@mlflow.example:5000")
    with pytest.raises(ValueError, match="must hold no name and password") as found:
        tracking.look()
    assert "http://mlflow.example:5000" in str(found.value)
    assert "hunter2" not in str(found.value)
    monkeypatch.setenv(URI, "postgresql://user:hunter2@db.example/mlflow")
    assert "hunter2" not in mlflow_store.reason(RuntimeError("cannot log in as user:hunter2@db.example"))


def test_a_relative_path_of_sqlite_means_the_same_file_in_every_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(URI, "sqlite:///mlflow.db")
    assert mlflow_store.store_uri() == f"sqlite:///{tmp_path}/mlflow.db"


def test_a_home_that_sqlite_cannot_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_HOME", str(tmp_path / "50%"))
    with pytest.raises(ValueError, match="RESNET_HOME must have no %"):
        tracking.look()


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
        tracking.look()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_told_and_the_training_goes_on(answering: Any, status: int) -> None:
    answering(status, b"later")
    assert f"cannot answer now ({status})" in str(tracking.look())


def test_a_server_that_is_down_is_told_and_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URI, "http://127.0.0.1:9")
    assert tracking.look() == "MLflow at http://127.0.0.1:9 cannot be reached: connection refused"


def test_credentials_of_the_environment_are_sent(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    server = answering(200, b'{"experiment": {"lifecycle_stage": "active"}}')
    assert tracking.look() is None
    assert server.asked["Authorization"] == "Basic YWRhOmh1bnRlcjI="


def test_a_registry_that_refuses_is_told_as_such(answering: Any) -> None:
    answering(401, b"You are not authenticated.")
    with pytest.raises(ValueError, match=r"model resnet@champion cannot be looked up: .*\(401\)"):
        tracking.resolve("resnet@champion")


def test_a_deleted_experiment_is_told_before_the_training_with_the_way_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI, f"sqlite:///{tmp_path}/mlflow.db")
    assert tracking.look() is None, "a new file"
    api = tracking.client()
    made = tracking.experiment(api)
    assert tracking.look() is None
    assert api.get_experiment(made).tags["mlflow.experimentKind"] == "custom_model_development"
    api.delete_experiment(made)
    with pytest.raises(ValueError, match=f"experiments restore --experiment-id {made}`, or .*MLFLOW_EXPERIMENT_NAME"):
        tracking.look()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    assert tracking.look() is None
    assert api.get_experiment(tracking.experiment(api)).name == "another"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
    with pytest.raises(ValueError, match="must not be deleted, got resnet"):
        tracking.look()
    api.restore_experiment(made)
    assert tracking.look() is None
    assert tracking.experiment(api) == made


def test_a_deleted_model_version_or_alias_is_told_and_the_next_training_registers_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI, f"sqlite:///{tmp_path}/mlflow.db")
    api, by = tracking.client(), tracking.Judged(10, 100, "d", "single")

    def register(folder: str) -> str:
        name = tracking.model_name(api, None, by)
        run_id = api.create_run(tracking.experiment(api)).info.run_id
        return tracking.register(api, run_id, folder, by, name, lambda: (folder, None))[1]

    assert register("/one").startswith("champion is now version 1")
    api.delete_registered_model_alias("resnet", "champion")
    with pytest.raises(ValueError, match="got 'resnet@champion'; aliases of resnet: none"):
        tracking.resolve("resnet@champion")
    assert register("/two").startswith("champion is now version 2")
    api.delete_model_version("resnet", "2")
    with pytest.raises(ValueError, match="resnet has no version 2"):
        tracking.resolve("resnet/2")
    assert register("/three").startswith("champion is now version 3")
    api.delete_registered_model("resnet")
    with pytest.raises(ValueError, match="got 'resnet@champion'; `make train` trains and registers one"):
        tracking.resolve("resnet@champion")
    assert register("/four").startswith("champion is now version 1")


def test_a_package_that_mlflow_misses_is_named_by_our_extra() -> None:
    missing = ModuleNotFoundError("No module named 'boto3'")
    assert mlflow_store.reason(missing).endswith("pip install 'deep-residual-ray[s3]'")
