"""From a training into a bucket to an answer of the endpoint, on an S3 server on the loopback interface."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import fs

from pipelines.models import canary_alias
from serve.api import application
from serve.deploy_settings import Deploy
from serve.versions.attempts import Attempts, OwnNotes
from serve.versions.served_models import Models
from tests.s3_server import s3_server
from tests.serve.conftest import Client

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[fs.FileSystem]:
    """The file system of bucket `runs`, which AWS's own variables name for all processes."""
    with s3_server("runs") as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield fs.FileSystem.from_uri("s3://runs")[0]


@pytest.mark.slow
def test_what_was_trained_into_a_bucket_answers(
    bucket: fs.FileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNET_HOME", str(tmp_path))
    words = ["cifar10-resnet8", "--storage", "s3://runs/demo", "--recipe.epochs", "0.1", "--scaling.workers", "1"]
    command = [sys.executable, str(ROOT / "jobs" / "train_imagenet.py"), *words]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=clean, timeout=560)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["checkpoint"].startswith("s3://runs/demo/cifar10-resnet8-A.s0/step-")
    assert (outcome["model_name"], outcome["model_version"]) == ("resnet", "1"), done.stderr[-3000:]

    bucket.delete_dir("runs/demo/cifar10-resnet8-A.s0")  # the version owns its files
    args, traffic = Deploy(precision="float32").resolved(canary_alias.traffic("resnet@champion"))
    assert args.checkpoint == f"s3://runs/demo/registry/resnet/{outcome['mlflow_run']}"
    models = Models.open(args, traffic.stable, Attempts(args, "test", OwnNotes(), lambda _: False))
    client = Client(application.create_application(models, args))
    try:
        data = io.BytesIO()
        Image.fromarray(np.full((28, 28), 90, np.uint8)).save(data, "PNG")
        answer = client.post("/v1/predict", content=data.getvalue())
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] == "1"
        assert len(answer.json()["images"][0]["predictions"]) == 5
        assert client.get("/v1/model").json()["top1_error"] == pytest.approx(outcome["top1_error"])
    finally:
        client.close()
        models.close()
