"""The servers of benchmarks/serve.py, one a process: serve_contenders.py NAME CHECKPOINT --batch N [--port|--images]

All of them use serve.classifier with one thread. LitServe has a file of its own, as it runs in .venv-peers and pickles
its class; ours itself is jobs/deploy_best.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fastapi import FastAPI, Request

from serve.classifier import Answer, Classifier


def top5(model: Classifier, answer: Answer) -> list[dict[str, Any]]:
    """What every contender answers with."""
    return [{"name": p.image_class.name, "probability": p.probability} for p in model.best(answer.probabilities, 5)]


def bare(checkpoint: str, images: Path) -> None:
    """Decode and classify in one loop of one thread: the limit. A line `BATCH SECONDS` is answered by its figures."""
    import numpy as np

    model = Classifier(checkpoint)
    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    order = np.random.default_rng(0).permutation(len(files))
    data = [files[i].read_bytes() for i in order]
    place = 0
    for line in sys.stdin:
        size, seconds = int(line.split()[0]), float(line.split()[1])
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 5:
            batch = [data[(place + k) % len(data)] for k in range(size)]
            place += size
            since = time.perf_counter()
            answers = model.run_batch([model.crop(image) for image in batch])
            json.dumps([top5(model, answer) for answer in answers])
            times.append(time.perf_counter() - since)
        ms = np.array(times[2:]) * 1000  # the first passes set up
        p50, p99 = (float(np.percentile(ms, q)) for q in (50, 99))
        row = {"per_second": size * 1000 / ms.mean(), "p50": p50, "p99": p99, "answered": size * len(times)}
        print(json.dumps(row), flush=True)


def fastapi(checkpoint: str, port: int, largest: int) -> None:
    """FastAPI and uvicorn with a batcher as one writes it in twenty lines."""
    import uvicorn

    model = Classifier(checkpoint)
    app = FastAPI()
    queue: asyncio.Queue[tuple[Any, asyncio.Future[Answer]]] = asyncio.Queue()
    decode, network = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    tasks = set()

    async def run() -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await queue.get()]
            while len(batch) < largest and not queue.empty():
                batch.append(queue.get_nowait())
            answers = await loop.run_in_executor(network, model.run_batch, [pixels for pixels, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    @app.post("/predict")
    async def predict(request: Request) -> list[dict[str, Any]]:
        if not tasks:
            tasks.add(asyncio.create_task(run()))
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(decode, model.crop, await request.body())
        future: asyncio.Future[Answer] = loop.create_future()
        queue.put_nowait((pixels, future))
        return top5(model, await future)

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="warning")


def main() -> None:
    """Serve until told to stop; `bare` prints its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=("bare", "fastapi"))
    parser.add_argument("checkpoint")
    parser.add_argument("--batch", type=int, default=8, help="most images of one pass; bare is told with each turn")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--images", type=Path)
    asked = parser.parse_args()
    if asked.name == "bare":
        return bare(asked.checkpoint, asked.images)
    return fastapi(asked.checkpoint, asked.port, asked.batch)


if __name__ == "__main__":
    main()
