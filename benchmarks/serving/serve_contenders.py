"""The servers of serve.py, one a process: serve_contenders.py NAME CHECKPOINT --batch N [--port|--images]

All of them use serve.inference.classifier with one thread a network. LitServe has a file of its own, as it runs in
.venv-peers and pickles its class; ours itself is jobs/deploy_best.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fastapi import FastAPI, Request

from serve.inference.classifier import Answer, Classifier


def top5(model: Classifier, answer: Answer) -> list[dict[str, Any]]:
    """The answer of every contender."""
    return [{"name": p.image_class.name, "probability": p.probability} for p in model.best(answer.probabilities, 5)]


def bare(checkpoint: str, images: Path, cores: int) -> None:
    """Decode and classify in a loop, a process of one thread a core: the limit. A line `BATCH SECONDS` is answered."""
    with ProcessPoolExecutor(cores, get_context("spawn"), _load, (checkpoint, images)) as pool:
        for future in [pool.submit(_turn, 1, 0.0) for _ in range(cores)]:
            future.result()
        for line in sys.stdin:
            size, seconds = int(line.split()[0]), float(line.split()[1])
            rows = [turn.result() for turn in [pool.submit(_turn, size, seconds) for _ in range(cores)]]
            total = {key: sum(row[key] for row in rows) for key in ("per_second", "answered")}
            print(json.dumps(total | {key: max(row[key] for row in rows) for key in ("p50", "p99")}), flush=True)


LOADED: list[Any] = []  # of a process: the classifier and the images


def _load(checkpoint: str, images: Path) -> None:
    """Once in a process of bare."""
    import numpy as np

    files = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    order = np.random.default_rng(0).permutation(len(files))
    LOADED.extend((Classifier(checkpoint), [files[i].read_bytes() for i in order]))


def _turn(size: int, seconds: float) -> dict[str, float]:
    """Batches of a size for so many seconds."""
    import numpy as np

    model, data = LOADED
    place, times = 0, []
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
    return {"per_second": size * 1000 / ms.mean(), "p50": p50, "p99": p99, "answered": size * len(times)}


def fastapi(checkpoint: str, port: int, largest: int, cores: int) -> None:
    """FastAPI and uvicorn with a batcher as one writes it in twenty lines; a thread for the network a core."""
    import uvicorn

    model = Classifier(checkpoint)
    app = FastAPI()
    queue: asyncio.Queue[tuple[Any, asyncio.Future[Answer]]] = asyncio.Queue()
    decode, network = ThreadPoolExecutor(cores), ThreadPoolExecutor(cores)
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
            tasks.update(asyncio.create_task(run()) for _ in range(cores))
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
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--images", type=Path)
    asked = parser.parse_args()
    if asked.name == "bare":
        return bare(asked.checkpoint, asked.images, asked.cores)
    return fastapi(asked.checkpoint, asked.port, asked.batch, asked.cores)


if __name__ == "__main__":
    main()
