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
from pipelines import tracking
from resnet.checkpoint import Checkpoint, Progress, save
from resnet.classes import ImageClass
from resnet.net import build
from resnet.recipe import recipe

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
    save(folder, Checkpoint(build(paper.network, 10).state_dict(), {}, pixels, run, progress))
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
    done = subprocess.run(JOB, capture_output=True, text=True, cwd=ROOT, env=home)
    assert done.returncode == 2
    assert done.stderr.endswith("got 'resnet@champion'; `make train` trains and registers one\n")
    assert done.stdout == ""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray Serve and MLflow themselves
def test_on_a_running_cluster_the_champion_is_deployed_and_the_job_returns(
    ray_local: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    from ray import serve

    api = tracking.client()
    if not api.search_registered_models(f"name = '{tracking.MODEL}'"):
        api.create_registered_model(tracking.MODEL)
    version = api.create_model_version(tracking.MODEL, str(checkpoint)).version
    api.set_registered_model_alias(tracking.MODEL, tracking.CHAMPION, version)
    monkeypatch.setenv("RAY_ADDRESS", ray_local.address_info["address"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    serve.shutdown()  # another test's Serve listens elsewhere
    outcome = deploy_best.job(["--port", port, "--cpus", "0.1"])
    assert outcome["version"] == str(version)
    assert httpx.get(f"{outcome['url']}/v1/model").json()["version"] == str(version)
    serve.shutdown()


def test_a_checkpoint_is_served_until_it_is_told_to_stop(checkpoint: Path, tmp_path: Path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [*JOB, "--checkpoint", str(checkpoint), "--port", port]
    with (tmp_path / "err").open("w+") as errors:
        job = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=tmp_path)
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 120
            while f"curl --data-binary @IMAGE {url}/v1/predict" not in (tmp_path / "err").read_text():
                assert job.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.3)
            Image.fromarray(np.full((28, 28), 90, np.uint8)).save(tmp_path / "digit.png")
            answer = httpx.post(f"{url}/v1/predict", content=(tmp_path / "digit.png").read_bytes())
            assert len(answer.json()["images"][0]["predictions"]) == 5
            assert httpx.post(f"{url}/v1/predict", content=b"no image").status_code == 400
            os.kill(job.pid, signal.SIGINT)
            stdout, _ = job.communicate(timeout=60)
        finally:
            if job.poll() is None:
                job.terminate()
                job.wait(60)
    assert job.returncode == 0
    outcome = json.loads(stdout.splitlines()[-1])
    assert outcome == {"url": url, "model": "resnet", "version": "unregistered", "checkpoint": str(checkpoint)}
