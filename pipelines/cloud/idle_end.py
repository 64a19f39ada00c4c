"""python -m pipelines.cloud.idle_end head|worker MINUTES -- COMMAND

Runs COMMAND (`sudo shutdown -h now`) once nothing has needed this machine for MINUTES. A head is needed while a job is
running or waiting, or an application of Ray Serve is deployed; a worker while Ray runs on it: one that has lost its
head is ended by nobody else. docs/cluster.md says what is lost with the head: nothing that lies in the bucket.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

EVERY = 30.0  # seconds between two looks
DASHBOARD = "http://127.0.0.1:8265"


def ray_runs() -> bool:
    """True if Ray's process of this machine, the raylet, is there."""
    return any(process.info["name"] == "raylet" for process in psutil.process_iter(["name"]))


def head_is_needed(dashboard: str = DASHBOARD, token_file: str | None = None) -> bool:
    """True if a job runs or waits, or an application is deployed. Unknown counts as needed while Ray itself runs."""
    place = token_file or os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
    try:
        token = Path(place).expanduser().read_text().strip()
        jobs = _answer(f"{dashboard}/api/jobs/", token)
        applications = _answer(f"{dashboard}/api/serve/applications/", token)["applications"]
    except (OSError, ValueError, KeyError) as error:
        print(f"the dashboard does not answer: {error}", flush=True)
        return ray_runs()
    return bool(applications) or any(job["status"] in ("PENDING", "RUNNING") for job in jobs)


def _answer(url: str, token: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
        return json.load(answer)


def wait_until_idle(needed: Callable[[], bool], minutes: float, every: float = EVERY) -> None:
    """Return once `needed` has been False at every look for so many minutes on end."""
    since = time.monotonic()
    while (left := since + 60 * minutes - time.monotonic()) > 0:
        if needed():
            since = time.monotonic()
        time.sleep(min(every, left))


def main(words: list[str]) -> int:
    """Wait, then run the command; its status. 2 and a sentence for a wrong command line."""
    try:
        role, minutes, dashes, *command = words
        needed = {"head": head_is_needed, "worker": ray_runs}[role]
        if dashes != "--" or not command or float(minutes) <= 0:
            raise ValueError
    except (ValueError, KeyError):
        print(f"must be called as `head|worker MINUTES -- COMMAND`, got {' '.join(words)!r}", file=sys.stderr)
        return 2
    wait_until_idle(needed, float(minutes))
    print(f"nothing needed this {role} for {minutes} minutes: {' '.join(command)}", flush=True)
    return subprocess.call(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
