"""The endpoint's model and the offline prediction on one device, without HTTP: images a second and waiting times.

A part of benchmarks/training/gpu.py. The network is untrained, the pictures are drawn: 500 x 375 pixels, JPEG. Clients
ask one picture after another, as many at a time as are said; decoding, queue and batches are the endpoint's own. HTTP
comes on top: benchmarks/serving/serve.py.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipelines.prediction.prediction_worker import PredictionJob, predicted
from resnet import build
from resnet.host.cpu_quota import usable_cores
from resnet.image_class import ImageClass
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint
from serve.inference.inference_service import Inference
from serve.inference.offline_classifier import Offline
from serve.metrics import Metrics
from serve.settings import Settings


def pictures(count: int, width: int = 500, height: int = 375) -> list[bytes]:
    """Drawn JPEGs, some 30 kB each."""
    found = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return found


def untrained(folder: Path, network: str, classes: int) -> Path:
    """The checkpoint of a network that has learnt nothing."""
    torch.manual_seed(0)
    chosen = recipe(network)
    named = tuple(ImageClass(id=i, wnid=f"n{i:08d}", name=f"class {i}") for i in range(classes))
    pixels = {"mean": torch.full((3, 1, 1), 120.0), "std": torch.full((3, 1, 1), 60.0)}
    progress = Progress(step=1, total_steps=1, examples=1, classes=named)
    weights = build(chosen.network, classes).state_dict()
    save_checkpoint(folder, Checkpoint(weights, {}, pixels, {"recipe": chosen.model_dump(mode="json")}, progress))
    return folder


def gpu_serving(
    network: str, classes: int, batch: int, clients: Sequence[int], seconds: float, device: torch.device
) -> dict[str, Any]:
    """Answers with so many clients at a time, then the offline prediction of the same pictures."""
    threads, files = usable_cores(), pictures(64)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = untrained(Path(folder) / "step-00000001", network, classes)
        model = Offline(str(checkpoint), threads=threads, device=device.type)
    asked = Settings(threads=threads, batch=batch, max_waiting=max(*clients, 32), gpus=float(device.type == "cuda"))
    inference = Inference(model, asked, Metrics({"model": "resnet", "version": "0", "replica": "0"}))
    began = time.perf_counter()
    inference.warm_up()
    result: dict[str, Any] = {"network": network, "precision": model.precision, "batch": batch, "threads": threads}
    result |= {"engine": model.engine, "warm_up_seconds": round(time.perf_counter() - began, 1)}
    for count in clients:
        result[f"{count}_clients"] = asyncio.run(_asked(inference, files, count, seconds))
    inference.close()
    return result | {"prediction": _prediction(model, files, batch, seconds)}


async def _asked(inference: Inference, files: Sequence[bytes], clients: int, seconds: float) -> dict[str, float]:
    waited: list[float] = []
    began = time.perf_counter()

    async def client(number: int) -> None:
        asked = number
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            await inference.answer([files[asked % len(files)]])
            waited.append(time.perf_counter() - start)
            asked += clients

    await asyncio.gather(*(client(number) for number in range(clients)))
    took = time.perf_counter() - began
    p50, p99 = (float(f"{1000 * value:.4g}") for value in np.quantile(waited, (0.5, 0.99)))
    return {"images_per_second": round(len(waited) / took, 1), "p50_ms": p50, "p99_ms": p99}


def _prediction(model: Offline, files: Sequence[bytes], batch: int, seconds: float) -> dict[str, float]:
    """One worker of jobs/predict_images.py: decoding in a thread while the network computes, rows as a table."""
    job = PredictionJob(images="", out="", batch=batch)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        done += predicted([(str(i), data) for i, data in enumerate(files)], model, job).num_rows
    return {"images_per_second": round(done / (time.perf_counter() - began), 1)}
