"""Clients of `jobs/deploy_best.py` while events drawn at random happen to it: no request is lost.

    python -m benchmarks.reliability.endpoint_events [--requests 100000] [--events 40] [--out FILE]

Events: SIGKILL to each kind of process, SIGSTOP to one of two replicas for longer than the time-out, the alias moved, a
damaged version, a version whose trial is killed while it loads, a canary begun and promoted or rolled back, the job
drained and started again. 32 clients ask one image after the other and compare each answer with the offline prediction
of the version that it names. Refused: 503 with Retry-After or no connection, and asked again. Lost: any other end.

The last line of stdout is JSON. Exit status 1: a request was lost that was in no killed HAProxy and no stopped replica,
or an answer was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil

from benchmarks.reliability.endurance import drawn, untrained
from benchmarks.reliability.endurance_client import Expected, agrees
from benchmarks.reliability.survival import HEALTHY, KINDS, Endpoint, _wait
from serve.inference.offline_classifier import Offline

MODEL = "resnet@champion"
EXCUSED = ("kill HAProxy", "kill HAProxy's keeper", "kill HAProxy of large bodies", "stop")
GOOD, DAMAGED, DYING = ("1", "2"), "3", "4"


class Clients:
    """Asks until it is ended, in a thread of its own. event: the name under which outcomes are counted."""

    def __init__(self, url: str, expected: Expected, count: int) -> None:
        self.url, self.expected, self.count = f"{url}/v1/predict?top_k=1000", expected, count
        self.event, self.seen = "before", {"before": Counter[str]()}
        self.latencies: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)
        self._thread.start()

    @property
    def answered(self) -> int:
        """Good answers so far."""
        return sum(counts["200"] for counts in self.seen.values())

    def begin(self, event: str) -> None:
        """Count under another name from here on."""
        self.seen.setdefault(event, Counter())
        self.event = event

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join(120)

    async def _all(self) -> None:
        connector = aiohttp.TCPConnector(limit=self.count)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(120)) as session:
            await asyncio.gather(*(self._ask(session, number) for number in range(self.count)))

    async def _ask(self, session: aiohttp.ClientSession, number: int) -> None:
        while not self._over.is_set():
            number += 1
            began, event = time.monotonic(), self.event
            outcome = await self._once(session, number % len(self.expected.images))
            # A request that was on its way when the next event came may be lost by that one
            self.seen[event if event in EXCUSED or outcome == "200" else self.event][outcome] += 1
            if outcome == "200":
                self.latencies.append(time.monotonic() - began)
            else:
                await asyncio.sleep(0.2)

    async def _once(self, session: aiohttp.ClientSession, image: int) -> str:
        try:
            async with session.post(self.url, data=self.expected.images[image]) as answer:
                body = await answer.read()
                if answer.status == 503:
                    return "refused" if "Retry-After" in answer.headers else "503 without Retry-After"
                if answer.status != 200:
                    return str(answer.status)
                told = json.loads(body)
                right = agrees(told, self.expected.answers[told["version"]][image])
                return "200" if right else "wrong"
        except aiohttp.ClientConnectorError:
            return "refused"
        except (aiohttp.ClientError, TimeoutError) as error:
            return type(error).__name__


class Events:
    """What may happen to an endpoint."""

    def __init__(self, folder: Path, timeout: float, rng: np.random.Generator) -> None:
        from pipelines.tracking import mlflow_runs

        self.folder, self.timeout, self.rng, self.api = folder, timeout, rng, mlflow_runs.client()
        self.places = {version: untrained(folder / version, int(version)) for version in GOOD}
        for version, source in ((DAMAGED, "1"), (DYING, "2")):
            self.places[version] = str(shutil.copytree(self.places[source], folder / version))
        (folder / DAMAGED / "model.safetensors").write_bytes(b"damaged")
        self.api.create_registered_model("resnet")
        for place in self.places.values():
            self.api.create_model_version("resnet", place)
        self.move(GOOD[0])
        self.endpoint = Endpoint(folder, None, timeout, replicas=2)
        self.kinds: dict[str, Callable[[], object]] = {f"kill {kind}": partial(self.kill, kind) for kind in KINDS}
        self.kinds |= {
            "stop": self.stop, "alias": self.alias, "damaged version": self.damaged, "version that dies": self.dying,
            "canary": self.canary, "drain and restart": self.restart,
        }  # fmt: skip

    def move(self, version: str) -> None:
        """Let the alias name a version."""
        self.api.set_registered_model_alias("resnet", "champion", version)

    def card(self) -> dict[str, Any]:
        """GET /v1/model, or nothing while nobody answers."""
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"{self.endpoint.url}/v1/model", timeout=self.timeout)
            return answer.json() if answer.status_code == 200 else {}
        return {}

    def until(self, true: Callable[[dict[str, Any]], object]) -> None:
        """Wait until several looks in turn, which meet both replicas, are as they shall be."""
        for _ in range(4):
            _wait(lambda: bool(card := self.card()) and true(card), HEALTHY, self.endpoint.errors.read_text)

    def kill(self, kind: str) -> None:
        """SIGKILL to a process; another takes its place."""
        words = KINDS[kind]
        before = self.endpoint.processes(*words)
        chosen = [p for p in before if "launcher" in words[0] or "launcher" not in " ".join(p.cmdline())]
        chosen[int(self.rng.integers(len(chosen)))].kill()
        known = {process.pid for process in before}
        _wait(lambda: any(p.pid not in known for p in self.endpoint.processes(*words)), HEALTHY)
        _wait(lambda: len(self.endpoint.processes(*KINDS["replica"])) == 2, HEALTHY)

    def stop(self) -> None:
        """SIGSTOP to one of two replicas, for longer than the time-out."""
        replica = self.endpoint.processes(*KINDS["replica"])[0]
        replica.suspend()
        time.sleep(self.timeout + 5)
        with contextlib.suppress(psutil.Error):  # Ray may have replaced it
            replica.resume()

    def alias(self) -> None:
        """The alias names the other version."""
        now = self.card()["version"]
        wanted = GOOD[now == GOOD[0]]
        self.move(wanted)
        self.until(lambda card: card["version"] == wanted)

    def damaged(self) -> None:
        """The alias names a version that cannot be loaded, and then the one before it."""
        now = self.card()["version"]
        self.move(DAMAGED)
        self.until(lambda card: card["refused"])
        self.move(now)
        self.until(lambda card: not card["refused"] and card["version"] == now)

    def dying(self) -> None:
        """The process that tries a version is killed."""
        now = self.card()["version"]
        self.move(DYING)
        trial = ("serve.versions.trial_process",)
        deadline = time.monotonic() + HEALTHY
        while not (card := self.card()).get("refused") and card.get("version") != DYING and time.monotonic() < deadline:
            for process in self.endpoint.processes(*trial):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self.move(now)
        self.until(lambda card: not card["refused"] and card["version"] == now)

    def canary(self) -> None:
        """The other version answers a third of the images, and then all of them or none."""
        from pipelines.models import canary_alias

        now = self.card()["version"]
        canary_alias.begin_beside(MODEL, canary_alias.Beside([f"{GOOD[now == GOOD[0]]}=33%"]))
        self.until(lambda card: card["beside"])
        time.sleep(3)
        canary_alias.end_beside(MODEL, promote=bool(self.rng.integers(2)))
        self.until(lambda card: not card["beside"])

    def restart(self) -> None:
        """SIGTERM to the job, and the same command again once it has ended."""
        began = time.monotonic()
        self.endpoint.process.terminate()
        told = self.endpoint.left(began)
        if told["processes left"] or told["port taken"]:
            raise RuntimeError(f"a drained job left {told}")
        self.endpoint = Endpoint(self.folder, None, self.timeout, replicas=2, port=self.endpoint.port)


def drawn_events(kinds: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """Each kind as often as it goes, in random order, the rest drawn."""
    whole = kinds * (count // len(kinds))
    more = rng.choice(kinds, count - len(whole), replace=False).tolist()
    return rng.permutation([*whole, *more]).tolist()


def verdict(seen: dict[str, Counter[str]]) -> dict[str, Any]:
    """Counts over all events, and what was lost where. right: nothing but what may be."""
    lost = {
        event: {outcome: n for outcome, n in counts.items() if outcome not in ("200", "refused")}
        for event, counts in seen.items()
    }
    lost = {event: counts for event, counts in lost.items() if counts}
    wrong = sum(counts.get("wrong", 0) for counts in lost.values())
    total = Counter[str]()
    for counts in seen.values():
        total.update(counts)
    right = not wrong and all(event in EXCUSED for event in lost)
    return {"outcomes": dict(total), "lost": lost, "right": right}


def main() -> int:
    """Ask, let things happen, and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=40)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--timeout", type=float, default=15.0, help="of the endpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="*", help="pattern of events, such as 'kill *'")
    parser.add_argument("--log", type=Path, help="file for the job's own lines")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    with tempfile.TemporaryDirectory(prefix="events-", ignore_cleanup_errors=True) as name:
        os.environ["RESNET_HOME"] = name
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        told = _run(asked, Events(Path(name), asked.timeout, rng), rng)
    if asked.out is not None:
        asked.out.write_text(json.dumps(told, indent=1) + "\n")
    print(json.dumps(told))
    return 0 if told["right"] else 1


def _run(asked: argparse.Namespace, events: Events, rng: np.random.Generator) -> dict[str, Any]:
    images = [drawn(seed, 320, 240, "JPEG") for seed in range(24)]
    models = {version: Offline(place) for version, place in events.places.items() if version != DAMAGED}
    clients = Clients(events.endpoint.url, Expected(images, models), asked.clients)
    began = time.monotonic()
    kinds = [kind for kind in events.kinds if fnmatch(kind, asked.only)]
    for number, kind in enumerate(drawn_events(kinds, asked.events, rng), 1):
        clients.begin(kind)
        at = time.monotonic()
        events.kinds[kind]()
        time.sleep(2)
        line = f"{number}/{asked.events} {kind}: {time.monotonic() - at:.0f} s, {dict(clients.seen[kind])}"
        print(line, file=sys.stderr, flush=True)
    clients.begin("after")
    while clients.answered < asked.requests:
        time.sleep(1)
    clients.end()
    seconds = time.monotonic() - began
    left = _ended(events)
    if asked.log is not None:
        asked.log.write_text("".join(path.read_text() for path in sorted(events.folder.glob("stderr-*"))))
    p50, p99, most = (round(1000 * float(np.quantile(clients.latencies, q)), 1) for q in (0.5, 0.99, 1))
    told = {"requests": sum(sum(c.values()) for c in clients.seen.values()), "events": asked.events}
    told |= {"clients": asked.clients, "seconds": round(seconds), "p50_ms": p50, "p99_ms": p99, "max_ms": most}
    return told | {"left": left, "by_event": {k: dict(v) for k, v in clients.seen.items()}} | verdict(clients.seen)


def _ended(events: Events) -> dict[str, Any]:
    began = time.monotonic()
    events.endpoint.process.terminate()
    return events.endpoint.left(began)


if __name__ == "__main__":
    sys.exit(main())
