"""Requests of a job to the keeper of its HAProxy: refuse what is new, tell what is in progress, end."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve.haproxy.front_keeper import CONTROL


class FrontControl:
    """Orders to the keeper of a folder's HAProxy. OSError: there is none."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / CONTROL

    def order(self, **fields: Any) -> dict[str, Any]:
        """Give one order, and return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(40)
            connection.connect(str(self.path))
            connection.sendall(json.dumps(fields).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
        answer = json.loads(line or b"{}")
        if "error" in answer:
            raise OSError(answer["error"])
        return answer

    def drain(self, seconds: float, hurried: Callable[[], bool] = lambda: False) -> int:
        """Let new requests be answered by 503 with Retry-After, and return when those in progress have ended.

        How many have not after so many seconds, or when somebody was in a hurry.
        """
        self.order(close=True)
        deadline = time.monotonic() + seconds
        while (left := self.order(busy=True).get("streams", 0)) and time.monotonic() < deadline and not hurried():
            time.sleep(0.1)
        return left

    def end(self) -> None:
        """End HAProxy and its keeper."""
        with contextlib.suppress(OSError):
            self.order(end=True)
