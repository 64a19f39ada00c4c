"""No request fails while replicas die, versions change and clients misbehave.

    python -m benchmarks.reliability.endurance [OPTIONS]

Starts Ray for itself and serves an untrained ResNet-20 on loopback with two replicas. Every answer is compared with the
offline prediction of the version that it names. In turn: kill -9 of replicas, another version, a canary, a rolling
update, growing and shrinking, ten times as many clients as are let in, clients that send a byte a second or hang up,
damaged bodies and headers, schemathesis on the OpenAPI document, a client above its rate, from zero
replicas. Last line: JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.reliability.endurance_client import Expected, Load, Seen, drip, drop, fuzz
from pipelines.cluster import connection
from resnet.host.hardware import describe_hardware
from resnet.image_class import ImageClass
from resnet.networks.resnet import build
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint
from serve.haproxy import environment
from serve.haproxy.front_config import FrontChoices
from serve.inference.offline_classifier import Offline
from serve.settings import Args
from serve.versions.replica_states import verdicts
from serve.versions.traffic import Canary, Traffic, Version

Outcome = dict[str, Any]
MOST = (
    16  # requests at one replica at once; eight times as few as by default, so that a small machine can be overloaded
)
KILLS = 8
WARM = 3  # tenths of the damaged requests, before memory is judged
TIMEOUT = 10.0  # seconds for a body; the endpoint's own default is 30


def untrained(folder: Path, seed: int) -> str:
    """A checkpoint of ResNet-20 with ten classes whose answers differ from image to image."""
    torch.manual_seed(seed)
    net = build("cifar10-resnet20", 10)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.2)
            torch.nn.init.uniform_(module.weight, 0.3, 0.8)
    classes = tuple(ImageClass(id=i, wnid=str(i), name=f"class {i}") for i in range(10))
    pixels = {"mean": torch.full((3, 1, 1), 120.0), "std": torch.full((3, 1, 1), 60.0)}
    run = {"recipe": recipe("cifar10-resnet20").model_dump(mode="json"), "seed": seed}
    progress = Progress(step=1, total_steps=1, examples=1, classes=classes)
    save_checkpoint(folder, Checkpoint(net.state_dict(), {}, pixels, run, progress))
    return str(folder)


def photographs(folder: str | None, count: int = 64) -> list[bytes]:
    """JPEGs of a folder, or drawn ones of 320 x 240 pixels; and four PNGs of 1 MB, as cameras make them."""
    large = [drawn(number, 800, 600, "PNG") for number in range(4)]
    if folder is None:
        return [drawn(number, 320, 240, "JPEG") for number in range(count)] + large
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    return [path.read_bytes() for path in paths[:: max(1, len(paths) // count)][:count]] + large


def drawn(seed: int, width: int, height: int, kind: str) -> bytes:
    """A smooth coloured image with noise, encoded."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    noisy = np.clip(np.asarray(coarse) + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, kind, quality=90)
    return stream.getvalue()


class Endurance:
    """The application, and the trials that it goes through."""

    def __init__(self, folder: Path, images: list[bytes], seconds: float) -> None:
        from serve import app
        from serve.versions import rollout

        self.app, self.rollout, self.seconds, self.folder = app, rollout, seconds, folder
        self.one, self.two = (Version(version=v, checkpoint=untrained(folder / v, int(v))) for v in "12")
        self.expected = Expected(images, {v.version: Offline(v.checkpoint) for v in (self.one, self.two)})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def deploy(self, version: Version, **settings: Any) -> None:
        """Serve a version; with other settings than before this is a rolling update."""
        shared = {"min_replicas": 2, "max_replicas": 2, "cpus": 0.1, "access_log": False, "timeout": TIMEOUT}
        args = Args(**version.model_dump(), **(shared | settings))
        self.app.deploy(args, "127.0.0.1", self.port)

    async def during(self, action: Callable[[], Any], connections: int = 8, least: float | None = None) -> Seen:
        """Load while something happens in a thread, and for a while before and after."""
        async with Load(self.url, self.expected, connections) as seen:
            await asyncio.sleep(1)
            began = time.monotonic()
            await asyncio.to_thread(action)
            await asyncio.sleep(max(1.0, (least or self.seconds) - (time.monotonic() - began)))
        return seen

    def replicas(self) -> list[int]:
        """Process ids."""
        return [state.pid for state in self.rollout.states()]

    def memory(self) -> dict[str, float]:
        """MiB that the replicas and the proxies hold, each kind together; Ray is this process's own."""
        found = {"replicas": 0.0, "proxies": 0.0}
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                name = process.name()
                kind = "replicas" if name.startswith("ray::ServeReplica") else "proxies"
                if kind == "replicas" or name == "haproxy" or name.startswith("ray::ProxyActor"):
                    found[kind] += process.memory_info().rss / 2**20
        return found

    async def steady(self) -> Outcome:
        """Eight clients and nothing else."""
        return (await self.during(lambda: None)).summary()

    async def kill(self) -> Outcome:
        """kill -9 of one of two replicas, and of the other when there are two again, and so on."""

        def one_after_the_other() -> None:
            for round_ in range(KILLS):
                os.kill(self.replicas()[round_ % 2], signal.SIGKILL)
                self.wait_for(2)

        seen = await self.during(one_after_the_other, connections=16)
        return seen.summary() | {"kills": KILLS}

    def wait_for(self, count: int, seconds: float = 90) -> float:
        """Seconds until there are so many replicas, all answering."""
        began, steady = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            try:
                there = [pid for pid in self.replicas() if psutil.pid_exists(pid)]
            except Exception:  # a replica that has just died is still asked
                there = []
            steady = steady + 1 if len(set(there)) == count else 0
            if steady == 3:
                return time.monotonic() - began
            time.sleep(0.2)
        raise TimeoutError(f"not {count} replicas within {seconds:g} s")

    async def change(self) -> Outcome:
        """Another version in place, a canary, its end, and back."""
        canary = Traffic(stable=self.one, beside=(Canary(**self.two.model_dump(), percent=30),))
        told: list[str] = []

        def changes() -> None:
            for traffic in (Traffic(stable=self.two), Traffic(stable=self.one), canary):
                assert self.rollout.switch(traffic) is None
            time.sleep(4)
            told.extend(verdict.sentence for verdict in verdicts(self.rollout.states()).values())
            assert self.rollout.switch(Traffic(stable=self.one)) is None

        return (await self.during(changes)).summary() | {"verdict": told[0]}

    async def roll(self) -> Outcome:
        """A rolling update: both replicas are replaced by new processes."""
        before = set(await asyncio.to_thread(self.replicas))
        seen = await self.during(lambda: self.deploy(self.one, batch=4))
        after = set(await asyncio.to_thread(self.replicas))
        return seen.summary() | {"replaced": len(before - after)}

    async def scale(self) -> Outcome:
        """From one replica to three under load, and back to one under less; delays of 1 and 3 seconds are set."""
        settings = {"min_replicas": 1, "max_replicas": 3, "target_requests": 4.0}
        delays = {"upscale_delay": 1.0, "downscale_delay": 3.0}
        await asyncio.to_thread(self.deploy, self.one, **settings, **delays)
        await asyncio.to_thread(self.wait_for, 1)
        up: list[float] = []
        grown = await self.during(lambda: up.append(self.wait_for(3)), connections=24)
        down: list[float] = []
        shrunk = await self.during(lambda: down.append(self.wait_for(1)), connections=1)
        return {"seconds_1_to_3": round(up[0], 1), "seconds_3_to_1": round(down[0], 1), "growing": grown.summary(),
                "shrinking": shrunk.summary()}  # fmt: skip

    async def zero(self) -> Outcome:
        """No replica while nobody asks: the first request waits for one."""
        settings = {"min_replicas": 0, "max_replicas": 1, "upscale_delay": 0.0, "downscale_delay": 3.0}
        await asyncio.to_thread(self.deploy, self.one, **settings)
        gone = await asyncio.to_thread(self.wait_for, 0)
        async with Load(self.url, self.expected, 1) as seen:
            while not seen.codes:
                await asyncio.sleep(0.1)
        return seen.summary() | {
            "seconds_to_zero": round(gone, 1),
            "first_answer_s": round(max(seen.seconds, default=-1), 1),
        }

    async def overload(self) -> Outcome:
        """As many clients as images are let in, then ten times as many, then few again."""
        await asyncio.to_thread(self.deploy, self.one, max_waiting=MOST, max_images=8)
        full = await self.during(lambda: None, connections=2 * MOST)
        before = await asyncio.to_thread(self.memory)
        over = await self.during(lambda: None, connections=20 * MOST)
        after_it = await asyncio.to_thread(self.memory)
        grown = {kind: round(after_it[kind] - before[kind], 1) for kind in before}
        after = await self.during(lambda: None, connections=4, least=2)
        ratio = over.rate / max(full.rate, 1e-9)
        return {"full": full.summary(), "over": over.summary(), "throughput_ratio": round(ratio, 3),
                "without_retry_after": over.without_retry_after, "memory_grew_mib": grown,
                "after": after.summary()}  # fmt: skip

    async def misbehave(self) -> Outcome:
        """Clients at a byte a second and clients that hang up, beside others who must not notice."""
        data = self.expected.images[0]
        async with Load(self.url, self.expected, 4) as seen:
            slow = [asyncio.create_task(drip(self.url, data, 40)) for _ in range(32)]
            for number in range(200):
                await drop(self.url, data, number % 10 / 10)
            ends = await asyncio.gather(*slow)
        waiting = await asyncio.to_thread(self._in_progress)
        return {"others": seen.summary(), "slow": {end: ends.count(end) for end in set(ends)}, "dropped": 200,
                "in_progress_after": waiting}  # fmt: skip

    def _in_progress(self) -> float:
        import urllib.request

        time.sleep(1)
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("resnet_images_in_progress{"))

    async def fuzz(self, count: int) -> Outcome:
        """Damaged requests in ten equal parts; how memory goes from the third part's end on."""
        began, parts, memory = time.monotonic(), [], []
        for seed in range(10):
            parts.append(await fuzz(self.url, self.expected, "1", count // 10, seed))
            memory.append(await asyncio.to_thread(self.memory))
        codes: Counter[str] = sum((part["codes"] for part in parts), Counter())
        thousands = np.arange(10)[WARM:] * (count // 10) / 1000
        slope = {k: float(np.polyfit(thousands, [m[k] for m in memory[WARM:]], 1)[0]) for k in memory[0]}
        hourly = count / (time.monotonic() - began) * 3.6  # thousands of requests
        bad = [line for part in parts for line in part["first_bad"]]
        return {"requests": count, "codes": dict(codes), "bad": sum(p["bad"] for p in parts), "first_bad": bad[:5],
                "memory_mib": {k: [round(m[k], 1) for m in memory] for k in slope}, "warm_up_parts": WARM,
                "mib_per_1000_requests": {k: round(v, 2) for k, v in slope.items()},
                "mib_in_an_hour_at_this_rate": {k: round(v * hourly, 1) for k, v in slope.items()}}  # fmt: skip

    async def limit(self) -> Outcome:
        """One client with eight connections at a limit of 20 requests a second, over two replicas that share it."""
        await asyncio.to_thread(self.deploy, self.one, rate_limit=20.0, rate_burst=20)
        await asyncio.sleep(3)  # each has seen how many there are
        seen = await self.during(lambda: None)
        return seen.summary() | {"allowed": round(20 + 20 * seen.took)}

    async def openapi(self) -> Outcome:
        """schemathesis against the OpenAPI document: no server error."""
        words = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{self.url}/openapi.json"]
        more = ["--checks", "not_a_server_error", "--max-examples", "40", "--no-color", "--request-timeout", "30"]
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 240, "cwd": self.folder}
        done = await asyncio.to_thread(subprocess.run, [*words, *more], **options)
        lines = [line.strip() for line in done.stdout.splitlines() if "generated" in line or "passed" in line]
        return {"status": done.returncode, "said": lines[-3:]} | (
            {} if done.returncode == 0 else {"out": done.stdout[-1500:]}
        )


async def trials(endurance: Endurance, names: list[str], requests: int) -> Outcome:
    """Go through the trials, in the order of TRIALS: some leave other settings behind."""
    outcome: Outcome = {}
    for name in sorted(names, key=TRIALS.index):
        began = time.monotonic()
        run = getattr(endurance, name)
        outcome[name] = await (run(requests) if name == "fuzz" else run())
        print(f"{name} {time.monotonic() - began:.0f} s: {json.dumps(outcome[name])}", file=sys.stderr, flush=True)
    return outcome


TRIALS = ["steady", "kill", "change", "roll", "misbehave", "fuzz", "openapi", "limit", "overload", "scale", "zero"]


def main() -> None:
    """Serve, go through the trials, and end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of JPEGs; without it drawn ones")
    parser.add_argument("--seconds", type=float, default=8.0, help="least time of a trial under load")
    parser.add_argument("--requests", type=int, default=10_000, help="damaged requests")
    parser.add_argument("--proxy", choices=("auto", "haproxy", "serve"), default="auto")
    parser.add_argument("--trials", nargs="+", choices=TRIALS, default=TRIALS)
    asked = parser.parse_args()
    environment.use_haproxy(asked.proxy, FrontChoices(TIMEOUT, MOST))
    connection.connect()
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        endurance = Endurance(Path(folder), photographs(asked.images), asked.seconds)
        endurance.deploy(endurance.one)
        try:
            found = asyncio.run(trials(endurance, asked.trials, asked.requests))
        finally:
            from ray import serve

            serve.shutdown()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    about = {"command": " ".join(sys.argv), "commit": commit, "hardware": describe_hardware(), "proxy": asked.proxy}
    print(json.dumps(about | found))


if __name__ == "__main__":
    main()
