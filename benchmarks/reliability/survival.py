"""The endpoint of `jobs/deploy_best.py` is asked to end, and its processes are killed, stopped and looked for.

    python -m benchmarks.reliability.survival [--cases NAMES] [--timeout SECONDS]

Cases that end the job with requests in progress: sigterm, ctrl-c, sighup, group (SIGTERM to all processes of its group)
and timeout (the command). Cases under load of four clients: kill (SIGKILL to each kind of process in turn, then to the
job itself), stop (SIGSTOP to one of two replicas), node (SIGKILL to Ray's node manager) and store (to its store).
An untrained network, a home that is thrown away.

The last line of stdout is JSON: by case the requests by outcome, the longest time without an answer, seconds until no
process and no socket was left, and what was left. Exit status 1 if a case went wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.reliability.endurance import drawn, untrained

ROOT = Path(__file__).resolve().parents[2]
MARK = "RESNET_SURVIVAL"
KINDS = {  # process: words of its command
    "HAProxy": ("haproxy", "front-"),
    "HAProxy of large bodies": ("haproxy", "large.cfg"),
    "HAProxy's keeper": ("serve.haproxy.front_keeper",),
    "launcher": ("serve.haproxy.launcher",),
    "replica": ("ray::ServeReplica",),
    "Serve's controller": ("ray::ServeController",),
    "Ray's manager of HAProxy": ("ray::HAProxyManager",),
}
ENDED = 40.0  # seconds until nothing may be left of a job
HEALTHY = 90.0  # seconds until a killed process is replaced


class Endpoint:
    """A job that serves, in a group of processes of its own. checkpoint: None serves the registered champion."""

    def __init__(
        self, folder: Path, checkpoint: str | None, timeout: float, *before: str, replicas: int = 1, port: int = 0
    ) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        self.mark, self.url = uuid.uuid4().hex, f"http://127.0.0.1:{self.port}"
        self.errors = folder / f"stderr-{len(list(folder.glob('stderr-*')))}"
        given = {"port": self.port, "timeout": timeout, "cpus": 0.5, "min-replicas": replicas, "max-replicas": replicas}
        words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        environment = os.environ | {MARK: self.mark, "RESNET_HOME": str(folder), "PYTHONPATH": str(ROOT)}
        if checkpoint is not None:
            words += ["--checkpoint", checkpoint]
        command = [*before, sys.executable, str(ROOT / "jobs" / "deploy_best.py"), *words]
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=errors, env=environment, start_new_session=True
            )
        _wait(lambda: "curl --data-binary" in self.errors.read_text(), 180, self.errors.read_text)

    def processes(self, *words: str) -> list[psutil.Process]:
        """Of this job, with these words in their commands."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                command = " ".join(process.cmdline())
                if process.environ().get(MARK) == self.mark and all(word in command for word in words):
                    found.append(process)
        return [p for p in found if p.status() != psutil.STATUS_ZOMBIE]

    def left(self, began: float) -> dict[str, Any]:
        """The remains when it has ended. began: when it was asked to."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(ENDED)
        deadline = time.monotonic() + ENDED
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        took = time.monotonic() - began
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken = probe.connect_ex(("127.0.0.1", self.port)) == 0
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        status = self.process.poll()
        names = sorted({process.name() for process in left if process.is_running()})
        return {"seconds": round(took, 1), "status": status, "processes left": names, "port taken": taken}


def _wait(true: Any, seconds: float, told: Any = str) -> float:
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise RuntimeError(f"not within {seconds:g} seconds: {told()[-2000:]}")
        time.sleep(0.05)
    return time.monotonic() - began


class Load:
    """Clients that ask one after the other. gap: the longest time from one good answer to the next."""

    def __init__(self, url: str, images: list[bytes], clients: int = 4) -> None:
        self.url, self.images, self.seen = url, images, Counter[str]()
        self.gap, self.slowest, self._last, self._over = 0.0, 0.0, time.monotonic(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,), daemon=True) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self, number: int) -> None:
        with httpx.Client(timeout=120) as client:
            while not self._over.is_set():
                number += 1
                began = time.monotonic()
                try:
                    outcome = str(
                        client.post(
                            f"{self.url}/v1/predict", content=self.images[number % len(self.images)]
                        ).status_code
                    )
                except httpx.TransportError as error:
                    outcome = type(error).__name__
                    time.sleep(0.05)
                now = time.monotonic()
                self.seen[outcome] += 1
                self.slowest = max(self.slowest, now - began)
                if outcome == "200":
                    self.gap, self._last = max(self.gap, now - self._last), now

    def end(self) -> dict[str, Any]:
        """Stop asking: the outcomes."""
        self._over.set()
        for thread in self._threads:
            thread.join(130)
        return {"requests": dict(self.seen), "gap": round(self.gap, 1), "slowest": round(self.slowest, 1)}


def drained(how: str, folder: Path, checkpoint: str, timeout: float) -> dict[str, Any]:
    """24 requests in progress, and then the end; one more afterwards."""
    endpoint = Endpoint(folder, checkpoint, timeout, *(("timeout", "1d") if how == "timeout" else ()))
    images = [drawn(1, 1600, 1200, "JPEG"), drawn(2, 800, 600, "PNG")]
    with ThreadPoolExecutor(25) as pool:

        def ask(number: int = 0) -> str:
            image = images[number % 2]
            try:
                return str(httpx.post(f"{endpoint.url}/v1/predict", content=image, timeout=120).status_code)
            except httpx.TransportError as error:
                return type(error).__name__

        ask()
        asked = [pool.submit(ask, number) for number in range(24)]
        time.sleep(0.3)
        began, done = time.monotonic(), sum(each.done() for each in asked)
        number = {"ctrl-c": signal.SIGINT, "sighup": signal.SIGHUP}.get(how, signal.SIGTERM)
        (os.killpg if how in ("ctrl-c", "group", "sighup") else os.kill)(endpoint.process.pid, number)
        time.sleep(0.3)
        late = ask()
        outcomes = Counter(each.result() for each in asked)
    told = {"in progress": 24 - done, "answers": dict(outcomes), "one more": late, **endpoint.left(began)}
    right = set(outcomes) <= {"200", "503"} and outcomes["200"] > done and late in ("503", "ConnectError", "200")
    return told | {"right": right and not told["processes left"] and not told["port taken"]}


def killed(folder: Path, checkpoint: str, timeout: float) -> dict[str, Any]:
    """SIGKILL to each kind of process in turn, under load; at last to the job."""
    endpoint, images = Endpoint(folder, checkpoint, timeout, replicas=2), [drawn(1, 320, 240, "JPEG")]
    images = [*images * 20, drawn(2, 800, 600, "PNG")]
    told: dict[str, Any] = {}
    for kind, words in KINDS.items():
        load = Load(endpoint.url, images)
        time.sleep(2)
        before = endpoint.processes(*words)
        process = next(p for p in before if "launcher" in words[0] or "launcher" not in " ".join(p.cmdline()))
        process.kill()
        new = {p.pid for p in before}
        back = _wait(lambda w=words, n=new: any(p.pid not in n for p in endpoint.processes(*w)), HEALTHY)
        time.sleep(4)
        told[kind] = load.end() | {"back": round(back, 1)}
        print(f"{kind}: {json.dumps(told[kind])}", file=sys.stderr, flush=True)
    began = time.monotonic()
    endpoint.process.kill()
    told["job"] = endpoint.left(began)
    lost = {
        kind: {k: n for k, n in each["requests"].items() if k != "200"} for kind, each in told.items() if kind != "job"
    }
    # What HAProxy itself held when it was killed nobody can repeat
    right = not any(each for kind, each in lost.items() if "HAProxy" not in kind or kind.startswith("Ray's"))
    return told | {"right": right and not told["job"]["processes left"] and not told["job"]["port taken"]}


def stopped(folder: Path, checkpoint: str, timeout: float) -> dict[str, Any]:
    """SIGSTOP to one of two replicas under load: what it held, and what comes then."""
    endpoint = Endpoint(folder, checkpoint, timeout, replicas=2)
    load = Load(endpoint.url, [drawn(1, 320, 240, "JPEG")])
    time.sleep(2)
    replica = endpoint.processes(*KINDS["replica"])[0]
    replica.suspend()
    time.sleep(timeout + 10)
    told = load.end()
    with contextlib.suppress(psutil.Error):
        replica.resume()
    began = time.monotonic()
    endpoint.process.terminate()
    left = endpoint.left(began)
    right = set(told["requests"]) <= {"200", "504"} and told["slowest"] < timeout + 8
    return told | left | {"right": right and not left["processes left"] and not left["port taken"]}


def without(name: str, folder: Path, checkpoint: str, timeout: float) -> dict[str, Any]:
    """A process of Ray itself is killed: the job says so and ends, and nothing stays."""
    endpoint = Endpoint(folder, checkpoint, timeout)
    began = time.monotonic()
    endpoint.processes(f"/{name}")[0].kill()
    told = endpoint.left(began)
    said = endpoint.errors.read_text().strip().splitlines()[-1]
    return told | {"said": said, "right": told["status"] == 1 and not told["processes left"] and not told["port taken"]}


CASES: dict[str, Callable[[Path, str, float], dict[str, Any]]] = {
    **{how: partial(drained, how) for how in ("sigterm", "ctrl-c", "sighup", "group", "timeout")},
    "kill": killed,
    "stop": stopped,
    "node": partial(without, "raylet"),
    "store": partial(without, "gcs_server"),
}


def main() -> int:
    """Go through the cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--timeout", type=float, default=15.0, help="of the endpoint")
    asked = parser.parse_args()
    told: dict[str, Any] = {}
    for name in asked.cases:
        with tempfile.TemporaryDirectory(prefix="survival-", ignore_cleanup_errors=True) as folder:
            checkpoint = untrained(Path(folder) / "checkpoint", 1)
            told[name] = CASES[name](Path(folder), checkpoint, asked.timeout)
            print(f"{name}: {json.dumps(told[name])}", file=sys.stderr, flush=True)
    print(json.dumps(told))
    return 0 if all(each["right"] for each in told.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
