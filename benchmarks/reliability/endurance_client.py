"""The requests of endurance.py: images whose answers are known, damaged bodies, slow and broken connections."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from serve.inference.offline_classifier import Offline

ATOL = 2e-3  # of a probability: bfloat16 rounds otherwise in batches of another size
KNOWN = {400, 401, 404, 405, 408, 413, 415, 422, 429, 503, 504}


class Expected:
    """The offline answers to all images, by version."""

    def __init__(self, images: list[bytes], models: dict[str, Offline]) -> None:
        self.images, self.models = images, models
        self.answers = {version: [self.of(model, data) for data in images] for version, model in models.items()}

    @staticmethod
    def of(model: Offline, data: bytes) -> np.ndarray | None:
        """Probabilities by class id, or None for what is no image."""
        try:
            return model.run_batch([model.crop(data)])[0].probabilities
        except ValueError:
            return None


def agrees(answer: dict, expected: np.ndarray | None) -> bool:
    """True if a JSON answer has the offline probabilities."""
    if expected is None:
        return False
    told = np.zeros_like(expected)
    for p in answer["images"][0]["predictions"]:
        told[p["id"]] = p["probability"]
    return bool(np.abs(told - expected).max() <= ATOL)


@dataclass
class Seen:
    """Counts of the clients' outcomes."""

    codes: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    without_retry_after: int = 0
    seconds: list[float] = field(default_factory=list)
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Images answered a second."""
        return self.codes["200"] / max(self.took, 1e-9)

    def summary(self) -> dict[str, object]:
        """Counts and latencies in milliseconds."""
        p50, p99, most = (1000 * np.quantile(self.seconds, q) for q in (0.5, 0.99, 1)) if self.seconds else (0, 0, 0)
        return {
            "requests": sum(self.codes.values()), "codes": dict(self.codes), "versions": dict(self.versions),
            "wrong_answers": self.wrong, "ok_per_second": round(self.rate, 1),
            "p50_ms": round(p50, 1), "p99_ms": round(p99, 1), "max_ms": round(most, 1),
        }  # fmt: skip


class Load:
    """Within `async with`: connections that ask one image after the other, and check each answer."""

    def __init__(self, url: str, expected: Expected, connections: int) -> None:
        self.url, self.expected, self.connections = f"{url}/v1/predict?top_k=1000", expected, connections
        self.seen, self._end = Seen(), asyncio.Event()

    async def __aenter__(self) -> Seen:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=90)
        )
        self._began = time.perf_counter()
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(self.connections)]
        return self.seen

    async def __aexit__(self, *_: object) -> None:
        self._end.set()
        await asyncio.gather(*self._tasks)
        self.seen.took = time.perf_counter() - self._began
        await self._session.close()

    async def _ask(self, number: int) -> None:
        images, at = self.expected.images, number
        while not self._end.is_set():
            index, at, began = at % len(images), at + 1, time.perf_counter()
            try:
                async with self._session.post(self.url, data=images[index]) as answer:
                    body = await answer.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.seen.codes[type(error).__name__] += 1
                await asyncio.sleep(0.05)
                continue
            self.seen.codes[str(answer.status)] += 1
            if answer.status != 200:
                self.seen.without_retry_after += answer.status == 503 and "Retry-After" not in answer.headers
                await asyncio.sleep(0.05)  # one that obeys would wait a second: twenty times as impatient
                continue
            self.seen.seconds.append(time.perf_counter() - began)
            told = json.loads(body)
            self.seen.versions[told["version"]] += 1
            self.seen.wrong += not agrees(told, self.expected.answers[told["version"]][index])


def damaged(rng: np.random.Generator, images: list[bytes]) -> bytes:
    """A body: an image with bytes changed, cut, doubled or padded, or no image at all."""
    data = bytearray(images[int(rng.integers(len(images)))])
    way = int(rng.integers(6))
    if way == 0:
        return rng.bytes(int(rng.integers(0, 2000)))
    if way == 1:
        return bytes(data[: int(rng.integers(len(data)))])
    if way == 2:
        return bytes(data) + rng.bytes(int(rng.integers(1, 500)))
    for _ in range(int(rng.integers(1, 30))):
        data[int(rng.integers(len(data) if way > 3 else min(400, len(data))))] = int(rng.integers(256))
    return bytes(data)


HEADERS = {
    "Content-Type": ["image/jpeg", "text/html", "application/json", "multipart/form-data", "\x80\xff", "x" * 3000,
                     "multipart/form-data; boundary=x", "multipart/form-data; boundary=", "image/png; charset=utf-16"],
    "Content-Encoding": ["gzip", "deflate", "br", "identity", "gzip, gzip"],
    "Inference-Header-Content-Length": ["0", "-1", "10", "99999999999999999999", "abc", "1e3"],
    "Accept": ["text/html", "*/*", "image/webp;q=banana"],
    "X-Request-ID": ["a" * 200, "ok-1", "\t", "{}"],
    "Authorization": ["Bearer", "Basic Zm9v", "Bearer " + "k" * 5000],
    "Expect": ["100-continue"],
    "Range": ["bytes=0-1"],
}  # fmt: skip
PATHS = ("/v1/predict", "/v1/predict", "/v1/predict?top_k=0", "/v1/predict?top_k=9999999999999999999", "/v1/embed",
         "/v2/models/resnet/infer", "/v2/models/resnet/versions/%00/infer", "/v2/models/..%2f/ready", "/nothing",
         "/v1/predict?top_k=%ff")  # fmt: skip


def requests(count: int, images: list[bytes], seed: int = 0) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Method, path, body and headers."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        path = PATHS[int(rng.integers(len(PATHS)))]
        body = damaged(rng, images) if rng.random() < 0.7 or "infer" not in path else damaged_json(rng)
        names = [name for name in HEADERS if rng.random() < 0.15]
        headers = {name: HEADERS[name][int(rng.integers(len(HEADERS[name])))] for name in names}
        method = "POST" if rng.random() < 0.9 else ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"][int(rng.integers(5))]
        yield method, path, body, headers


def damaged_json(rng: np.random.Generator) -> bytes:
    """A body of the Open Inference Protocol with something wrong in it, or nothing."""
    odd = [None, -1, 2**70, "", "FP32", [1, 3, 32, 32], [0], [-1], {}, [[["a"]]], 1e400, "image", "pixels", "BYTES"]
    tensor = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [1.0] * 3072}
    for _ in range(int(rng.integers(0, 3))):
        tensor[list(tensor)[int(rng.integers(len(tensor)))]] = odd[int(rng.integers(len(odd)))]  # pyright: ignore
    text = json.dumps({"id": odd[int(rng.integers(len(odd)))], "inputs": [tensor]})
    return text.encode()[: int(rng.integers(10, len(text) + 200))]


async def fuzz(url: str, expected: Expected, version: str, count: int, seed: int, connections: int = 8) -> Any:
    """Send damaged requests; which codes came, and how many answers were none that the offline prediction gives."""
    codes: Counter[str] = Counter()
    bad: list[str] = []
    queue = requests(count, expected.images, seed)
    model = expected.models[version]

    async def worker(session: aiohttp.ClientSession) -> None:
        for method, path, body, headers in queue:
            try:
                async with session.request(method, f"{url}{path}", data=body, headers=headers) as answer:
                    content, status = await answer.read(), answer.status
            except (aiohttp.ClientError, ValueError, TimeoutError) as error:  # a header that aiohttp does not send
                codes[type(error).__name__] += 1
                continue
            codes[str(status)] += 1
            if status not in KNOWN | {200, 499}:
                bad.append(f"{method} {path} {status} {headers}")
            if status == 200 and path == "/v1/predict" and method == "POST" and not headers:
                told = json.loads(content)["images"][0]["predictions"]
                found = await asyncio.to_thread(Expected.of, model, body)
                if found is None or abs(found.max() - told[0]["probability"]) > ATOL:
                    bad.append(f"wrong answer {told[0]}")

    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        await asyncio.gather(*(worker(session) for _ in range(connections)))
    return {"requests": sum(codes.values()), "codes": codes, "bad": len(bad), "first_bad": bad[:5]}


async def drip(url: str, data: bytes, seconds: float) -> str:
    """Send a body at a byte a second; the status that comes, or how the connection ends."""
    reader, writer = await _opened(url, len(data))
    answer = asyncio.create_task(reader.readline())
    try:
        for at in range(int(seconds)):
            writer.write(data[at : at + 1])
            await writer.drain()
            if (await asyncio.wait([answer], timeout=1))[0]:
                return (answer.result().split() or [b"", b"closed"])[1].decode()
        return "none"
    except (ConnectionError, OSError):
        return "closed"
    finally:
        answer.cancel()
        writer.close()


async def drop(url: str, data: bytes, share: float) -> None:
    """Begin a request, send a part of its body, and close the connection."""
    _, writer = await _opened(url, len(data))
    writer.write(data[: int(share * len(data))])
    await writer.drain()
    writer.transport.abort()


async def _opened(url: str, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    at = urlsplit(url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    lines = ("POST /v1/predict HTTP/1.1", f"Host: {at.netloc}", "Content-Type: image/jpeg", f"Content-Length: {length}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    await writer.drain()
    return reader, writer
