"""Cameras behind each proxy: frames are answered, a SIGTERM is told to them, and the job ends in order.

    python benchmarks/reliability/camera_drain.py        HAProxy and Ray Serve's own proxy, two minutes

Each line of stdout is JSON: the proxy, frames that were answered, how the stream ended, seconds from SIGTERM to that
and to the job's end, and its exit status. Exit status 1 where a camera was not answered or not told.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)

from PIL import Image  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from benchmarks.serving.serve import write_checkpoint  # noqa: E402
from serve.haproxy.environment import free_ports  # noqa: E402

FRAMES = 20


def picture() -> bytes:
    """A grey JPEG."""
    stream = io.BytesIO()
    Image.new("RGB", (320, 240), (90, 120, 60)).save(stream, "JPEG")
    return stream.getvalue()


def ready(url: str, job: subprocess.Popen[bytes]) -> None:
    """Return when the endpoint classifies."""
    while job.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/v1/predict", picture(), timeout=30).read()
            return
        time.sleep(0.5)
    raise RuntimeError("the job ended before it was ready")


def attempt(proxy: str, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """One proxy: the line of JSON."""
    (port,) = free_ports(1)
    words = ["--checkpoint", str(checkpoint), "--port", str(port), "--proxy", proxy, "--deadline", "5000"]
    environment = os.environ | {"RESNET_HOME": str(folder), "PYTHONPATH": str(ROOT)}
    with (folder / f"{proxy}.log").open("w") as log:
        job = subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / "deploy_best.py"), *words],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
    url, row = f"http://127.0.0.1:{port}", {"proxy": proxy, "answered": 0}
    try:
        ready(url, job)
        with connect(f"ws://127.0.0.1:{port}/v1/stream?top_k=1", proxy=None) as socket:
            for _ in range(FRAMES):
                socket.send(picture())
                row["answered"] += "predictions" in json.loads(socket.recv(timeout=30))
            job.send_signal(signal.SIGTERM)
            began = time.monotonic()
            try:
                while True:
                    socket.recv(timeout=60)
            except ConnectionClosed as closed:
                row["ended"] = "without a word" if closed.rcvd is None else f"{closed.rcvd.code} {closed.rcvd.reason}"
            row["told_after"] = round(time.monotonic() - began, 1)
        row["status"] = job.wait(90)
        row["ended_after"] = round(time.monotonic() - began, 1)
    finally:
        job.kill()
    return row


def main() -> None:
    """Try each proxy."""
    told = True
    with tempfile.TemporaryDirectory(prefix="camera-drain-") as folder:
        checkpoint = write_checkpoint("imagenet-resnet18", Path(folder))
        for proxy in ("haproxy", "serve"):
            row = attempt(proxy, checkpoint, Path(folder))
            told &= row["answered"] == FRAMES and str(row.get("ended")).startswith("1001")
            print(json.dumps(row), flush=True)
    sys.exit(not told)


if __name__ == "__main__":
    main()
