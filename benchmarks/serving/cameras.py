"""Cameras at /v1/stream against plain posts: latency from the picture to its answer, and the share without one.

    python benchmarks/serving/cameras.py                                  1 and 8 cameras of 30 frames a second
    python benchmarks/serving/cameras.py --proxy serve --rounds 1         behind Ray Serve's own proxy

The endpoint is jobs/deploy_best.py with an untrained ResNet-18. A camera takes a photograph each 1/30 s, of the size
that the endpoint's page sends. stream: sends each one; the endpoint drops what is stale and refuses what is late.
newest: posts the newest photograph whenever it has its answer. all: posts each at once, on connections of its own.
Latency is since the photograph was taken. An answer is in time within --deadline milliseconds. Ways take turns. The
last line of stdout is JSON, the rest is on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in this folder the name serve is serve.py

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402
from websockets.asyncio.client import connect  # noqa: E402

from benchmarks.serving.serve import find_images, write_checkpoint  # noqa: E402
from resnet.host.hardware import describe_hardware  # noqa: E402
from serve.haproxy.environment import free_ports  # noqa: E402

WARM = 3.0  # seconds that are not counted
CONNECTIONS = 16  # of one camera that posts all
SIDE = 256


class Tally:
    """What became of the photographs of all cameras in the seconds that count."""

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end
        self.taken = 0
        self.latencies: list[float] = []
        self.told: dict[str, int] = {}

    def photograph(self, at: float) -> None:
        """One was taken."""
        self.taken += self.start <= at < self.end

    def answer(self, at: float, kind: str = "answered") -> None:
        """One that was taken then has its answer now."""
        if self.start <= at < self.end:
            self.told[kind] = self.told.get(kind, 0) + 1
            if kind == "answered":
                self.latencies.append(time.perf_counter() - at)

    def row(self, cameras: int, deadline: float) -> dict[str, Any]:
        """Rates a camera and second, milliseconds, shares of the photographs that were taken."""
        ms = np.array(self.latencies or [float("nan")]) * 1000
        each = cameras * (self.end - self.start)
        return {
            "answers_per_second": len(self.latencies) / each,
            "in_time_per_second": float((ms <= deadline).sum()) / each,
            "p50": float(np.percentile(ms, 50)),
            "p99": float(np.percentile(ms, 99)),
            "unanswered": 1 - len(self.latencies) / max(1, self.taken),
            "refused_as_late": self.told.get("late", 0) / max(1, self.taken),
            "errors": {kind: count for kind, count in self.told.items() if kind not in ("answered", "late")},
        }


async def ticks(every: float, tally: Tally) -> AsyncIterator[float]:
    """The moments at which a camera takes its photographs, each at its time: none waits for an answer."""
    due = time.perf_counter() + every * float(np.random.default_rng().random())
    while due < tally.end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tally.photograph(due)
        yield due
        due += every


async def stream(url: str, images: list[bytes], every: float, tally: Tally) -> None:
    """A camera at /v1/stream."""
    taken: dict[int, float] = {}
    async with connect(f"ws{url.removeprefix('http')}/v1/stream", proxy=None, compression=None) as socket:

        async def listen() -> None:
            async for message in socket:
                answer = json.loads(message)
                status = answer.get("error", {}).get("status")
                tally.answer(taken[answer["frame"]], {None: "answered", 504: "late"}.get(status, str(status)))

        listening = asyncio.create_task(listen())
        async for due in ticks(every, tally):
            taken[len(taken) + 1] = due
            await socket.send(images[len(taken) % len(images)])
        await asyncio.sleep(1)
        listening.cancel()


class Post:
    """One connection that posts."""

    def __init__(self, url: str) -> None:
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __call__(self, data: bytes) -> str:
        """answered, or the status."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        head = f"POST /v1/predict HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        head_back = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head_back.partition("content-length: ")[2].split("\r\n")[0]))
        status = head_back.split()[1]
        return "answered" if status == "200" else status

    def close(self) -> None:
        """End the connection."""
        if self.streams is not None:
            self.streams[1].close()


async def newest(url: str, images: list[bytes], every: float, tally: Tally) -> None:
    """A camera that posts its newest photograph when it has its answer."""
    post, last, there = Post(url), (0, 0.0), asyncio.Event()

    async def ask() -> None:
        while True:
            await there.wait()
            there.clear()
            number, due = last
            tally.answer(due, await post(images[number % len(images)]))

    asking = asyncio.create_task(ask())
    async for due in ticks(every, tally):
        last = (last[0] + 1, due)
        there.set()
    await asyncio.sleep(1)
    asking.cancel()
    post.close()


async def every_one(url: str, images: list[bytes], every: float, tally: Tally) -> None:
    """A camera that posts all its photographs, as far as its connections reach."""
    free, number, tasks = [Post(url) for _ in range(CONNECTIONS)], 0, set()

    async def ask(post: Post, data: bytes, due: float) -> None:
        tally.answer(due, await post(data))
        free.append(post)

    async for due in ticks(every, tally):
        number += 1
        if free:
            tasks.add(asyncio.create_task(ask(free.pop(), images[number % len(images)], due)))
    if tasks:
        await asyncio.wait(tasks, timeout=10)
    for post in free:
        post.close()


WAYS = {"stream": stream, "newest": newest, "all": every_one}


async def measure(way: str, url: str, images: list[bytes], cameras: int, asked: argparse.Namespace) -> dict[str, Any]:
    """One turn."""
    start = time.perf_counter() + WARM
    tally = Tally(start, start + asked.seconds)
    shifted = [images[i * 7 % len(images) :] + images[: i * 7 % len(images)] for i in range(cameras)]
    await asyncio.gather(*(WAYS[way](url, each, 1 / asked.fps, tally) for each in shifted))
    return tally.row(cameras, asked.deadline)


def words_of(asked: argparse.Namespace, checkpoint: Path) -> list[object]:
    """The endpoint's options."""
    words = ["--checkpoint", checkpoint, "--proxy", asked.proxy, "--deadline", asked.deadline]
    words += ["--min-replicas", asked.replicas, "--max-replicas", asked.replicas, "--threads", asked.threads]
    return [*words, "--cpus", asked.threads, "--precision", asked.precision]


@contextlib.contextmanager
def endpoint(words: list[object], threads: int, folder: Path, image: bytes) -> Iterator[str]:
    """URL of the job. words: its options but for the port; threads: of a replica."""
    (port,) = free_ports(1)
    command = [sys.executable, str(ROOT / "jobs" / "deploy_best.py"), *map(str, words), "--port", str(port)]
    environment = os.environ | {"RESNET_HOME": str(folder), "OMP_NUM_THREADS": str(threads)}
    with (folder / "job.log").open("w") as log:
        job = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/v1/predict", image, timeout=30).read()
                break
            if job.poll() is not None:
                raise RuntimeError((folder / "job.log").read_text()[-2000:])
            time.sleep(0.5)
        time.sleep(5)  # HAProxy has the replicas
        yield url
    finally:
        job.send_signal(signal.SIGTERM)
        job.wait(90)


def photographs(folder: Path, count: int = 64) -> list[bytes]:
    """Photographs as the page's script sends frames: 4 to 3, the shorter side 256 pixels, JPEG."""
    files = sorted(folder.rglob("*.JPEG"))
    coded = []
    for path in files[:: max(1, len(files) // count)][:count]:
        stream = io.BytesIO()
        Image.open(path).convert("RGB").resize((SIDE * 4 // 3, SIDE)).save(stream, "JPEG", quality=85)
        coded.append(stream.getvalue())
    return coded


def main() -> None:
    """Measure, and print a line for each way and number of cameras and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="imagenet-resnet18")
    parser.add_argument("--images", type=Path, help="folder of .JPEG files; Imagenette's validation images")
    parser.add_argument("--cameras", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deadline", type=float, default=100.0, help="milliseconds")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of a replica")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--proxy", choices=["auto", "haproxy", "serve"], default="auto")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    asked = parser.parse_args()
    turns: dict[tuple[int, str], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-cameras-") as folder:
        images = photographs(find_images(asked.images, Path(folder)))
        words = words_of(asked, write_checkpoint(asked.network, Path(folder)))
        with endpoint(words, asked.threads, Path(folder), images[0]) as url:
            for turn in range(asked.rounds):
                for cameras in asked.cameras:
                    shift = turn % len(asked.ways)
                    for way in asked.ways[shift:] + asked.ways[:shift]:
                        row = asyncio.run(measure(way, url, images, cameras, asked))
                        turns.setdefault((cameras, way), []).append(row)
                        print(f"{cameras} {way:7} {json.dumps(row)}", file=sys.stderr, flush=True)
    lines = []
    for (cameras, way), rows in turns.items():
        line: dict[str, Any] = {"cameras": cameras, "way": way}
        for name in ("answers_per_second", "in_time_per_second", "p50", "p99", "unanswered", "refused_as_late"):
            line[name] = round(statistics.median(row[name] for row in rows), 3)
        line["p99_spread"] = [round(pick(row["p99"] for row in rows), 1) for pick in (min, max)]
        line["errors"] = sum(sum(row["errors"].values()) for row in rows)
        lines.append(line)
    settings = {name: value for name, value in vars(asked).items() if name != "images"}
    print(json.dumps({"hardware": describe_hardware(), "settings": settings, "table": lines}))


if __name__ == "__main__":
    main()
