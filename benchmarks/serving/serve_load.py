"""The client of benchmarks/serving/serve.py: so many connections, each posting the next JPEG when it has its answer.

    python benchmarks/serving/serve_load.py URL --images FOLDER --connections 8 --warm 2 --seconds 6

Plain asyncio with httptools' parser, so that the client costs a tenth of a millisecond a request. Every answer is read
to its end and must be 2xx. The last line of stdout is JSON: requests a second, latencies in milliseconds, errors.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop

LIMIT = 4000  # images that are read


class Connection(asyncio.Protocol):
    """One connection that is always waiting for one answer."""

    def __init__(self, load: Load) -> None:
        self.load = load

    def connection_made(self, transport: Any) -> None:
        """Send the first request."""
        self.transport = transport
        self._send()

    def _send(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.since = time.perf_counter()
        self.transport.write(self.load.request())

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls on_message_complete."""
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Count the answer, and ask for the next."""
        now = time.perf_counter()
        self.load.done(self.since, now, self.parser.get_status_code())
        if now < self.load.end:
            asyncio.get_running_loop().call_soon(self._send)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """A server that hangs up before the end has failed a request."""
        if time.perf_counter() < self.load.end:
            self.load.lost()


class Load:
    """The requests in turn and what came of them."""

    def __init__(self, url: str, images: list[bytes], warm: float, seconds: float) -> None:
        there = urlsplit(url)
        self.host, self.port = there.hostname or "", there.port or 80
        target = f"{there.path}?{there.query}" if there.query else there.path
        head = f"POST {target} HTTP/1.1\r\nHost: {there.netloc}\r\nContent-Type: image/jpeg\r\nContent-Length: "
        self.requests = [f"{head}{len(data)}\r\n\r\n".encode() + data for data in images]
        self.warm, self.seconds, self.next, self.answered = warm, seconds, 0, 0
        self.latencies: list[float] = []
        self.finished: list[float] = []
        self.errors: dict[str, int] = {}

    def request(self) -> bytes:
        """The next request's bytes."""
        self.next += 1
        return self.requests[self.next % len(self.requests)]

    def done(self, since: float, now: float, status: int) -> None:
        """Note an answer, if it came in the time that is measured."""
        self.answered += 1
        if not 200 <= status < 300:
            self.errors[str(status)] = self.errors.get(str(status), 0) + 1
        elif self.start <= now < self.end:
            self.latencies.append(now - since)
            self.finished.append(now)

    def lost(self) -> None:
        """Note a connection that the server ended."""
        self.errors["lost"] = self.errors.get("lost", 0) + 1

    async def run(self, connections: int) -> None:
        """Open the connections, and wait for the end."""
        loop = asyncio.get_running_loop()
        self.start = time.perf_counter() + self.warm
        self.end = self.start + self.seconds
        opened = [
            await loop.create_connection(lambda: Connection(self), self.host, self.port) for _ in range(connections)
        ]
        await asyncio.sleep(self.end - time.perf_counter())
        deadline = time.perf_counter() + 30
        while any(not transport.is_closing() for transport, _ in opened) and time.perf_counter() < deadline:
            await asyncio.sleep(0.02)

    def summary(self) -> dict[str, object]:
        """Requests a second between the first and the last answer; latencies in milliseconds."""
        if len(self.finished) < 3:
            return {"per_second": 0.0, "p50": 0.0, "p99": 0.0, "answered": self.answered, "errors": self.errors}
        ms = np.array(self.latencies) * 1000
        rate = (len(self.finished) - 1) / (self.finished[-1] - self.finished[0])
        p50, p99 = (float(np.percentile(ms, q)) for q in (50, 99))
        return {"per_second": rate, "p50": p50, "p99": p99, "answered": self.answered, "errors": self.errors}


def main() -> None:
    """Run once and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--warm", type=float, default=1.0, help="seconds before the measured ones")
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    files = sorted(path for path in asked.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:LIMIT]
    order = np.random.default_rng(0).permutation(len(files))
    load = Load(asked.url, [files[i].read_bytes() for i in order], asked.warm, asked.seconds)
    gc.freeze()
    uvloop.run(load.run(asked.connections))
    print(json.dumps(load.summary()))


if __name__ == "__main__":
    main()
