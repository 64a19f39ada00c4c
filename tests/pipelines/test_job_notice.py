"""What a webhook on loopback gets at the end of a job, and what a job says and records of its address."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines import job_notice
from pipelines.job_notice import JobNotice, content, host_of, send, take_address
from pipelines.tracking.mlflow_runs import run_page
from resnet_ray.__main__ import NOTIFYING, SCRIPTS

ROOT = Path(__file__).resolve().parents[2]
SECRET = "T0KEN-of-this-test"


@contextmanager
def hook(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook on loopback: its address, and what it has been told."""
    told: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/services/{SECRET}", told
        server.shutdown()


def status(code: int) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.end_headers()

    return answer


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_notice, "_facts", {})
    monkeypatch.delenv(job_notice.NOTIFY, raising=False)


def test_the_address_is_taken_from_the_words_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert take_address(["a", "--notify", "https://h/x", "--seed", "1"]) == ("https://h/x", ["a", "--seed", "1"])
    assert take_address(["--notify=http://h:80/x"]) == ("http://h:80/x", [])
    assert take_address(["a"]) == (None, ["a"])
    monkeypatch.setenv(job_notice.NOTIFY, "https://other/y")
    assert take_address(["a"]) == ("https://other/y", ["a"])
    assert take_address(["--notify", "https://h/x"]) == ("https://h/x", [])


@pytest.mark.parametrize(
    "address", ["", "--seed", f"ftp://h/{SECRET}", f"hooks.example.org/{SECRET}", "http://", "http://h:x/"]
)
def test_what_is_no_address_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ValueError, match=r"^--notify must be http\(s\)://HOST/") as caught:
        take_address(["--notify", address])
    assert SECRET not in str(caught.value)


def test_people_see_the_host() -> None:
    assert host_of(f"https://user:{SECRET}@hooks.example.org:8443/a?token={SECRET}") == "hooks.example.org:8443"


def test_the_notice_says_how_a_training_ended() -> None:
    job_notice.add_facts(run="noted", step=7, mlflow="http://m/#/experiments/1/runs/2")
    found = content("train_imagenet.py", "finished", 65.4, {"run": "r.s0", "steps": 1320, "top1_error": 3.0556}, None)
    host = socket.gethostname()
    assert found == {
        "text": f"r.s0 finished after 0:01:05 on {host}: top-1 error 3.06 %; step 1,320; http://m/#/experiments/1/runs/2",
        "job": "train_imagenet.py",
        "run": "r.s0",
        "outcome": "finished",
        "step": 1320,
        "error": None,
        "mlflow": "http://m/#/experiments/1/runs/2",
        "seconds": 65.4,
        "host": host,
        "top1_error": 3.0556,
    }
    failed = content("train_imagenet.py", "failed", 3.0, {}, "noted failed: a disk is full")
    assert (failed["run"], failed["step"], failed["error"]) == ("noted", 7, "noted failed: a disk is full")
    assert failed["text"].startswith(
        f"noted failed after 0:00:03 on {host}: step 7; noted failed: a disk is full; http"
    )


def test_the_notice_of_a_sweep_names_the_trials_that_failed() -> None:
    found = content("sweep_paper.py", "finished", 1.0, {"sweep": "table6", "failed": {"a": "no room"}}, None)
    assert (found["run"], found["error"]) == ("table6", "1 failed: a: no room")
    assert content("sweep_paper.py", "finished", 1.0, {"sweep": "table6", "failed": {}}, None)["error"] is None


def test_a_run_has_a_page_on_a_server_only() -> None:
    assert run_page("http://user:word@m:5000", "1", "ab") == "http://m:5000/#/experiments/1/runs/ab"
    assert run_page("sqlite:////tmp/mlflow.db", "1", "ab") == "MLflow run ab"


def test_a_notice_is_posted_and_the_rest_is_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with hook(status(200)) as (address, told):
        JobNotice("job.py", address).tell("stopped", error="stopped at step 3")
    JobNotice("job.py", None).tell("failed")
    (notice,) = told
    assert (notice["job"], notice["outcome"], notice["error"]) == ("job.py", "stopped", "stopped at step 3")
    assert capsys.readouterr() == ("", "")


def slow(request: BaseHTTPRequestHandler) -> None:
    """Answer a line now and then, each within any limit of a read."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(30):
        request.wfile.write(b"X: 1\r\n")
        time.sleep(0.1)


def cut(request: BaseHTTPRequestHandler) -> None:
    request.connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("answer", "why"),
    [(status(404), "status 404"), (status(500), "status 500"), (slow, "no answer within"), (cut, "RemoteDisconnected")],
)
def test_a_hook_that_fails_is_one_line(
    answer: Any, why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_notice, "LIMIT", 1.0)  # seconds
    began = time.monotonic()
    with hook(answer) as (address, _):
        send(address, {"text": "x"})
    assert time.monotonic() - began < 10
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert said.startswith("the notice to 127.0.0.1:")
    assert why in said
    assert SECRET not in said


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        send(f"http://127.0.0.1:{taken.getsockname()[1]}/{SECRET}", {"text": "x"})
    said = capsys.readouterr().err
    assert said.rstrip().endswith("is not delivered: ConnectionRefusedError")
    assert SECRET not in said


def test_the_installed_command_notifies_for_the_same_jobs() -> None:
    texts = {word: (ROOT / "jobs" / f"{script}.py").read_text() for word, script in SCRIPTS.items()}
    assert {word for word, text in texts.items() if "notifies=True" in text} == NOTIFYING


@pytest.mark.parametrize(
    "words", [["train_imagenet", "cifar10-resnet9"], ["sweep_paper", "table9"], ["search_recipe", "cifar10-resnet9"],
              ["train_detector", "--recipe.epochs", "none"], ["train_segmenter", "--recipe.epochs", "none"]]
)  # fmt: skip
def test_each_job_tells_of_its_failure(words: list[str], tmp_path: Path) -> None:
    with hook(status(200)) as (address, told):
        command = [sys.executable, f"jobs/{words[0]}.py", *words[1:], "--notify", address]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    (notice,) = told
    sentence = done.stderr.rstrip().removeprefix(f"{words[0]}.py: ")
    assert (done.returncode, notice["outcome"], notice["error"]) == (2, "failed", sentence)
    assert notice["text"].startswith(f"{words[0]}.py failed after 0:00:")
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_training_tells_of_its_end_and_nothing_that_it_leaves_has_the_address(tmp_path: Path) -> None:
    """Records, MLflow's database, checkpoints, both streams."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RESNET_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    with hook(status(200)) as (address, told):
        command = [sys.executable, "jobs/train_imagenet.py", "cifar10-resnet8", "--recipe.epochs", "1"]
        command += ["--scaling.workers", "1", "--notify", address]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, env=environment, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    (notice,) = told
    assert (notice["outcome"], notice["run"], notice["step"]) == ("finished", outcome["run"], outcome["steps"])
    assert notice["top1_error"] == outcome["top1_error"]
    assert notice["mlflow"] == f"MLflow run {outcome['mlflow_run']}"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"mlflow.db", "outcome.json", "run.json"} <= {path.name for path in files}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET.encode() not in done.stdout + done.stderr
