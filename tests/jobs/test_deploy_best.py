"""jobs/deploy_best.py as a person runs it: refusals in one sentence before Ray starts, and a served checkpoint."""

import json
import os
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
import pytest
import torch
from PIL import Image

from jobs import deploy_best
from pipelines.tracking import mlflow_runs, model_registry
from resnet.image_class import ImageClass
from resnet.networks.resnet import build
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint

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


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--checkpoint", "/nowhere"], "checkpoint must be a folder with model.safetensors, got /nowhere"),
        (["--prot", "3"], "near it: --port"),
        (["--checkpoint", "BEST", "--max-waiting", "1"], "max_waiting must be at least max_images"),
        (["--checkpoint", "BEST", "--port", "TAKEN"], "port must be free on 127.0.0.1"),
    ],
)
def test_a_mistake_is_named_before_ray_starts(words: list[str], sentence: str, checkpoint: Path, taken: int):
    words = [{"BEST": str(checkpoint), "TAKEN": str(taken)}.get(word, word) for word in words]
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        deploy_best.job(words)


def test_nothing_registered_is_one_sentence_and_status_2(tmp_path: Path):
    home = os.environ | {"RESNET_HOME": str(tmp_path)}
    done = subprocess.run(JOB, capture_output=True, text=True, cwd=ROOT, env=home, timeout=120)
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

    assert (card()["version"], card()["canary"]) == (second, None)
    deploy_best.job(["--canary", f"{first}=25%"])
    assert card()["canary"] == {"version": first, "percent": 25}
    ended = deploy_best.job(["--promote"])
    assert str(ended["done"]).startswith(
        f"version {first} is resnet@champion now (version {first} against {second}: undecided"
    )
    assert (card()["version"], card()["canary"]) == (first, None)
    assert model_registry.resolve("resnet@champion")[1] == first
    deploy_best.job(["--canary", f"{second}=25%"])
    deploy_best.job(["--rollback"])
    assert (card()["version"], card()["canary"]) == (first, None)
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


def test_the_model_is_served_and_followed_until_told_to_stop(checkpoint: Path, tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    first = registered(checkpoint, "tried")
    command = [*JOB, "--model", "resnet@tried", "--port", port, "--every", "0.5"]
    with (tmp_path / "err").open("w+") as errors:
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=tmp_path)
        try:
            url = f"http://127.0.0.1:{port}"

            def wait_for(words: str) -> None:
                deadline = time.monotonic() + 120
                while words not in (tmp_path / "err").read_text():
                    assert job.poll() is None
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
            os.kill(job.pid, signal.SIGINT)
            stdout, _ = job.communicate(timeout=60)
        finally:
            if job.poll() is None:
                job.terminate()
                job.wait(60)
    assert job.returncode == 0
    outcome = json.loads(stdout.splitlines()[-1])
    assert outcome == {"url": url, "model": "resnet", "version": first, "checkpoint": str(checkpoint)}
