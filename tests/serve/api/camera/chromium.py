"""A Chromium that a test drives by its debugging protocol, in real time: with a camera, virtual time does not go on."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.serve.api.test_pages import BROWSER, FLAGS


class Page:
    """A page that is open."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._last = socket, 0

    def order(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=30))).get("id") != self._last:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def value(self, script: str) -> Any:
        """What an expression of JavaScript is; a promise's when it has come."""
        found = self.order("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = 30) -> Any:
        """The value as soon as it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.value(script)):
            assert time.monotonic() < deadline, f"{script} within {seconds} s:\n{self.value('document.body.innerText')}"
            time.sleep(0.1)
        return value


@contextlib.contextmanager
def browser(url: str, profile: Path, more: Sequence[str] = ()) -> Iterator[Page]:
    """The page at a URL."""
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    flags = [flag for flag in FLAGS if "virtual-time" not in flag]
    words = [BROWSER, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", *more, url]
    log = profile.with_suffix(".log")
    with log.open("w") as stream, subprocess.Popen(words, stdout=stream, stderr=stream) as process:
        try:
            with connect(_debugger(log, url), proxy=None, max_size=2**26) as socket:
                page = Page(socket)
                page.until("document.readyState === 'complete' && location.protocol === 'http:'")
                yield page
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _debugger(log: Path, url: str) -> str:
    """The address of the page's debugger."""
    import httpx

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if found := re.search(r"DevTools listening on ws://([^/]+)/", log.read_text()):
            for target in httpx.get(f"http://{found[1]}/json", timeout=20).json():
                if target["type"] == "page" and target["url"].startswith(url):
                    return target["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise AssertionError(f"Chromium has no page within a minute: {log.read_text()[-2000:]}")
