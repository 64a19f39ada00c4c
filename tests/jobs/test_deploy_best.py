"""jobs/deploy_best.py as a person runs it: refusals in one sentence before Ray starts, and a served checkpoint."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from jobs import deploy_best
from pipelines.tracking import mlflow_runs, model_registry
from resnet.host.cpu_quota import usable_cores
from resnet.image_class import ImageClass
from resnet.networks.resnet import build
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint
from serve.haproxy import environment
from serve.haproxy.front_control import FrontControl
from tests.pipelines.cluster.test_private_ray import MARK, processes_of

ROOT = Path(__file__).resolve().parents[2]
JOB = [sys.executable, str(ROOT / "jobs" / "deploy_best.py")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of ten classes."""
    folder = tmp_path_factory.mktemp("deploy") / "best"
    paper, classes = recipe("cifar10-resnet8"), tuple(ImageClass(id=i, wnid=str(i), name=str(i)) for i in range(10))
    pixels = {"mean": torch.full((3, 1, 1), 120.0), "std": torch.full((3, 1, 1), 60.0)}
    progress = Progress(step=1, total_steps=1, examples=1, classes=classes)
    run = {"recipe": paper.model_dump(mode="json"), "seed": 0}
    save_checkpoint(folder, Checkpoint(build(paper.network, 10).state_dict(), {}, pixels, run, progress))
    return folder


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def damaged(folder: Path, checkpoint: Path, kind: str) -> Path:
    """A copy of the checkpoint that a replica refuses."""
    copy = Path(shutil.copytree(checkpoint, folder / kind.replace(" ", "-")))
    weights = load_file(copy / "model.safetensors")
    if kind == "nan":
        weights["conv1.weight"][0, 0, 0, 0] = float("nan")
    elif kind == "other network":
        del weights["conv1.weight"]
    save_file(weights, copy / "model.safetensors")
    if kind == "cut":
        (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:99])
    elif kind == "no run":
        (copy / "run.json").unlink()
    elif kind == "other run":
        (copy / "run.json").write_text("{}")
    elif kind == "examples":
        images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
        save_file({"images": images, "probabilities": torch.eye(10)[:2]}, copy / "examples.safetensors")
    return copy


CPUS, NODES = usable_cores(), "what this machine has"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--checkpoint", "/nowhere"], "checkpoint must be a folder with model.safetensors, got /nowhere"),
        (["--prot", "3"], "near it: --port"),
        (["--max-waiting", "1"], "max_waiting must be at least max_images"),
        (["--port", "TAKEN"], "port must be free on 127.0.0.1"),
        (
            ["--host", "no.such.host.invalid"],
            "host must be an address of this machine, 127.0.0.1 or 0.0.0.0, got no.su",
        ),
        (["--host", "192.0.2.1"], "host must be an address of this machine, 127.0.0.1 or 0.0.0.0, got 192.0.2.1"),
        (["--timeout", "inf"], "timeout must be a finite number, got inf"),
        (["--every", "nan"], "every must be"),
        (["--max-pixels", "100000000"], "max_pixels must be less than or equal to 89478485"),
        (["--api-key-file", "/nowhere"], "api_key_file must be readable, got /nowhere: No such file"),
        (["--api-key-file", "FOLDER"], "api_key_file must be readable, got FOLDER: Is a directory"),
        (["--api-key-file", ""], "api_key_file must name a file"),
        (["--api-key-file", "FOLDER/short"], "api_key_file line 1: a key must have at least 16 characters"),
        (["--api-key-file", "FOLDER/binary"], "api_key_file must be text with lines `NAME KEY`, got other bytes"),
        (
            ["--precision", "int8"],
            "precision int8 needs int8.onnx beside the checkpoint, got none in BEST; jobs/export",
        ),
        (["--precision", "int8", "--gpus", "1"], "gpus must be 0 with precision int8"),
        (["--models", "dogs", "/nowhere"], "models dogs must be a folder with model.safetensors, got /nowhere"),
        (["--models", "resnet", "BEST"], "models must have other names than the served model resnet"),
        (
            ["--checkpoint", "nan"],
            "checkpoint BAD cannot be served: weights must be finite numbers, got nan in conv1.weig",
        ),
        (["--checkpoint", "other network"], "must hold its weights: "),
        (["--checkpoint", "cut"], "checkpoint BAD is damaged: "),
        (["--checkpoint", "no run"], "checkpoint BAD cannot be served: a checkpoint must hold run.json, got BAD"),
        (["--checkpoint", "other run"], "checkpoint must be a whole checkpoint, got BAD: KeyError 'recipe'"),
        (["--checkpoint", "examples"], "its answers on its 2 stored examples differ by up to "),
        (["--gpus", "64"], f"gpus of a replica must be at most {NODES}, "),
        (["--gpus", "1.5"], "gpus must be a share of one or a whole number, got 1.5"),
        (["--cpus", "4096"], f"cpus of a replica must be at most {NODES}, {CPUS} CPUs, got 4096"),
        (
            ["--min-replicas", str(CPUS + 1), "--max-replicas", str(CPUS + 1)],
            f"min_replicas must be at most {CPUS}, as many replicas of 1 CPU as fit, got {CPUS + 1}",
        ),
        (["--grow"], "grow is for a cluster that others started"),
    ],
)
def test_a_mistake_is_named_before_ray_starts(
    words: list[str], sentence: str, checkpoint: Path, taken: int, tmp_path: Path
):
    (tmp_path / "short").write_text("ann secret\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0ann")
    known = {"BEST": str(checkpoint), "TAKEN": str(taken), "FOLDER": str(tmp_path)}
    if words[0] == "--checkpoint" and "/" not in words[1]:
        words = ["--checkpoint", str(damaged(tmp_path, checkpoint, words[1]))]
        known["BAD"] = words[1]
    elif words[0] != "--checkpoint":
        words = ["--checkpoint", "BEST", *words]
    for name, value in known.items():
        words = [word.replace(name, value) for word in words]
        sentence = sentence.replace(name, value)
    with pytest.raises(ValueError) as told:  # noqa: PT011  the sentence is compared below
        deploy_best.job(words)
    assert sentence in str(told.value)
    assert "\n" not in str(told.value)


def test_a_champion_whose_files_are_gone_is_named(checkpoint: Path, tmp_path: Path):
    version = registered(tmp_path / "gone", "lost")
    sentence = f"checkpoint of resnet@lost, version {version}, must be a folder with model.safetensors, got {tmp_path}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        deploy_best.job(["--model", "resnet@lost"])


def test_nothing_registered_is_one_sentence_and_status_2(tmp_path: Path):
    # A store of its own: of an empty home it would name the runs of this checkout, where `make train` has left some
    own = os.environ | {"RESNET_HOME": str(tmp_path), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/own.db"}
    done = subprocess.run(JOB, capture_output=True, text=True, cwd=ROOT, env=own, timeout=120)
    assert done.returncode == 2
    assert done.stderr.endswith("got 'resnet@champion'; `make train` trains and registers one\n")
    assert done.stdout == ""


def registered(checkpoint: Path, alias: str) -> str:
    """A new version of the model, which the alias names now."""
    api = mlflow_runs.client()
    if not api.search_registered_models(f"name = '{model_registry.MODEL}'"):
        api.create_registered_model(model_registry.MODEL)
    version = api.create_model_version(model_registry.MODEL, str(checkpoint)).version
    api.set_registered_model_alias(model_registry.MODEL, alias, version)
    return str(version)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve and MLflow themselves
def test_on_a_running_cluster_champion_and_canary_are_what_the_registry_says(
    ray_local: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    from ray import serve

    first, second = registered(checkpoint, "other"), registered(checkpoint, model_registry.CHAMPION)
    monkeypatch.setenv("RAY_ADDRESS", ray_local.address_info["address"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    serve.shutdown()  # another test's Serve listens elsewhere
    outcome = deploy_best.job(["--port", port, "--cpus", "0.1"])
    assert outcome["version"] == second

    def card() -> dict[str, Any]:
        return httpx.get(f"{outcome['url']}/v1/model").json()

    assert (card()["version"], card()["beside"]) == (second, [])
    deploy_best.job(["--canary", f"{first}=25%", "--promote-after", "1h"])
    assert card()["beside"] == [{"version": first, "percent": 25, "shadow": False, "promote_after": 3600}]
    ended = deploy_best.job(["--promote"])
    assert str(ended["done"]).startswith(
        f"version {first} is resnet@champion now (version {first} against {second}: undecided"
    )
    assert (card()["version"], card()["beside"]) == (first, [])
    assert model_registry.resolve("resnet@champion")[1] == first
    deploy_best.job(["--shadow", f"{second}=25%"])
    assert [each["shadow"] for each in card()["beside"]] == [True]
    deploy_best.job(["--rollback"])
    assert (card()["version"], card()["beside"]) == (first, [])
    serve.shutdown()


def test_wrong_canaries_are_named_and_change_nothing(checkpoint: Path):
    version = registered(checkpoint, model_registry.CHAMPION)
    for words, sentence in (
        (["--canary", "4"], "canary must be VERSION=PERCENT%"),
        (["--canary", "4=100%"], "more than 0 and less than 100"),
        (["--canary", f"{version}=5%"], "canary must be another version"),
        (["--canary", "999=5%"], "model must be registered"),
        (["--promote"], "must have a canary to promote"),
        (["--promote", "--rollback"], "only one of canary, promote and rollback"),
        (["--model", "resnet/1", "--canary", "2=5%"], "model must name an alias to have a canary"),
    ):
        with pytest.raises(ValueError, match=sentence):
            deploy_best.job(words)
    assert model_registry.resolve("resnet@champion")[1] == version


def check_listeners(processes: list[psutil.Process], port: int) -> None:
    """Of a job with --host 0.0.0.0: it is the only address of the network, and HAProxy the only program there."""
    found = {}
    for process in processes:
        with contextlib.suppress(psutil.Error):
            found |= {c.laddr: process.name() for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    open_ones = {place: name for place, name in found.items() if place[0].removeprefix("::ffff:") != "127.0.0.1"}
    if environment.refusal() is None:
        assert open_ones == {("0.0.0.0", port): "haproxy"}


def check_haproxy_comes_back(processes: list[psutil.Process], url: str) -> None:
    """After SIGKILL to it, within a second; the machine of a test may be crowded."""
    haproxy = next(p for p in processes if p.is_running() and "front-" in " ".join(p.cmdline()))
    haproxy.kill()
    haproxy.wait(10)
    deadline = time.monotonic() + 10
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end_by_sigterm_to_all(job: subprocess.Popen[str], processes: list[psutil.Process], port: int, image: bytes) -> str:
    """SIGTERM to all processes of the job's group, as `timeout` sends it, while four clients send; the job's stdout.

    What was accepted is answered, and what is new is told to come again.
    """
    keeper = next(p for p in processes if p.is_running() and "serve.haproxy.front_keeper" in p.cmdline())
    control = FrontControl(keeper.cmdline()[-2])
    clients = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(4)]
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(image)}\r\n\r\n"
    for client in clients:
        client.sendall(head.encode() + image[:10])
    deadline = time.monotonic() + 30
    while control.order(busy=True)["streams"] < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGTERM)
    os.kill(job.pid, signal.SIGTERM)  # the same request once more
    while httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for client in clients:
        client.sendall(image[10:])
    assert {client.recv(4096).partition(b"\r\n")[0] for client in clients} == {b"HTTP/1.1 200 OK"}
    stdout, _ = job.communicate(timeout=90)
    return stdout


def test_the_model_is_served_and_followed_until_told_to_stop(checkpoint: Path, tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    first = registered(checkpoint, "tried")
    command = [*JOB, "--model", "resnet@tried", "--host", "0.0.0.0", "--port", port, "--every", "0.5"]
    with (tmp_path / "err").open("w+") as errors:
        job = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=tmp_path,
            env=os.environ | {MARK: str(tmp_path)},
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"

            def wait_for(words: str) -> None:
                deadline = time.monotonic() + 120
                while words not in (tmp_path / "err").read_text():
                    assert job.poll() is None, (tmp_path / "err").read_text()
                    assert time.monotonic() < deadline, (tmp_path / "err").read_text()
                    time.sleep(0.3)

            wait_for(f"curl --data-binary @IMAGE {url}/v1/predict")
            Image.fromarray(np.full((28, 28), 90, np.uint8)).save(tmp_path / "digit.png")
            answer = httpx.post(f"{url}/v1/predict", content=(tmp_path / "digit.png").read_bytes())
            assert len(answer.json()["images"][0]["predictions"]) == 5
            assert answer.json()["version"] == first
            assert httpx.post(f"{url}/v1/predict", content=b"no image").status_code == 400
            registered(tmp_path, "tried")  # no checkpoint there
            wait_for("not served, the old version stays: version")
            second = registered(checkpoint, "tried")
            wait_for(f"now answers version {second}")
            assert httpx.get(f"{url}/readyz").json()["version"] == second
            line = '"path": "/v1/predict", "status": 200, "ms": '
            wait_for(line)  # of a replica, in the job's own words
            processes = processes_of(str(tmp_path))
            check_listeners(processes, int(port))
            if environment.refusal() is None:
                check_haproxy_comes_back(processes, url)
                stdout = end_by_sigterm_to_all(job, processes, int(port), (tmp_path / "digit.png").read_bytes())
            else:
                job.terminate()
                stdout, _ = job.communicate(timeout=90)
            assert not [p for p in processes_of(str(tmp_path)) if p.status() != psutil.STATUS_ZOMBIE]
        finally:
            if job.poll() is None:
                job.terminate()
                job.wait(60)
    assert job.returncode == 0
    outcome = json.loads(stdout.splitlines()[-1])
    assert outcome == {"url": url, "model": "resnet", "version": first, "checkpoint": str(checkpoint)}
