"""Checkpoints of untrained networks, images, and the endpoint in this process."""

import asyncio
import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image

from resnet.image_class import ImageClass
from resnet.networks.resnet import build
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint
from serve.api.application import create_application
from serve.inference.classifier import Classifier
from serve.inference.inference_service import Inference
from serve.metrics import Metrics
from serve.settings import Args
from serve.versions.loaded_model import Loaded
from serve.versions.served_models import Models


class Client:
    """Asks an application without a network between; callable from many threads, answers a 500 like any other."""

    def __init__(self, app: FastAPI) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://endpoint", timeout=60)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self.http.request(method, path, **options), self.loop).result(60)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.http.aclose(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


Clients = Callable[..., Client]
Picture = Callable[..., bytes]


def write_checkpoint(folder: Path, network: str, size: int, classes: int, seed: int = 0) -> Path:
    """An untrained network whose batch norm statistics are no longer 0 and 1."""
    torch.manual_seed(seed)
    net = build(network, classes)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.3, 0.8)
    base = recipe(network)
    paper = base.model_copy(update={"images": base.images.model_copy(update={"size": size})})
    named = tuple(ImageClass(id=i, wnid=f"n{i:08d}", name=f"class {i}") for i in range(classes))
    pixels = {"mean": torch.rand(3, size, size) * 40 + 100, "std": torch.full((3, 1, 1), 60.0)}
    run = {"recipe": paper.model_dump(mode="json"), "seed": seed}
    progress = Progress(step=1, total_steps=1, examples=1, classes=named)
    save_checkpoint(folder, Checkpoint(net.state_dict(), {}, pixels, run, progress))
    return folder


def draw(seed: int, width: int = 120, height: int = 90, kind: str = "JPEG") -> bytes:
    """A smooth coloured image that differs by seed, encoded."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    stream = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(stream, kind)
    return stream.getvalue()


@pytest.fixture(scope="session")
def picture() -> Picture:
    return draw


@pytest.fixture(scope="session")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("serve") / "cifar", "cifar10-resnet8-A", 32, 10)


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("serve") / "imagenet", "imagenet-resnet18-A", 64, 12)


@pytest.fixture(scope="session")
def classifier(cifar: Path) -> Classifier:
    return Classifier(str(cifar), precision="float32")


def application(classifier: Classifier, folder: Path, **settings: object) -> tuple[FastAPI, Inference]:
    args = Args(checkpoint=str(folder), version="7", **{"access_log": False, **settings})  # pyright: ignore[reportArgumentType]
    metrics = Metrics({"model": args.name, "version": args.version, "replica": "test"})
    inference = Inference(classifier, args, metrics)
    return create_application(Models(args, Loaded(args.name, args.version, str(folder), inference)), args), inference


@pytest.fixture
def clients(classifier: Classifier, cifar: Path) -> Iterator[Clients]:
    """Makes test clients of endpoints with the settings that are given."""
    opened: list[tuple[Client, Inference]] = []

    def make(model: Classifier = classifier, **settings: object) -> Client:
        app, inference = application(model, cifar, **settings)
        client = Client(app)
        opened.append((client, inference))
        return client

    yield make
    for client, inference in opened:
        client.close()
        inference.close()


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """URL of an application behind a real HTTP server in this process, without Ray."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def live(classifier: Classifier, cifar: Path) -> Iterator[str]:
    """URL of the endpoint."""
    app, inference = application(classifier, cifar)
    with listening(app) as url:
        yield url
    inference.close()
