"""The program that Ray starts in HAProxy's place: hands the configuration to HAProxy's keeper, and stands for HAProxy.

`python -m serve.haproxy.launcher FOLDER -db -f CONFIG [-sf PID] ...`, by the wrapper that environment.py writes. Ray
asks a process by its number and HAProxy by its socket; the keeper answers there with this process's number. It ends
when Ray ends it, or when another has taken its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from serve.haproxy.front_config import FrontSettings, front_config
from serve.haproxy.front_keeper import CONTROL
from serve.haproxy.haproxy_process import die_with_parent

WAIT = 15.0  # seconds for a keeper to start


def launch(folder: Path, words: Sequence[str]) -> int:
    """Stand for HAProxy until the end; the status that Ray sees."""
    config = words[words.index("-f") + 1]
    if "-c" in words:
        return _check(folder, config)
    parent = os.getppid()
    ray = parent_of(parent)
    while os.getppid() == parent:
        with _keeper(folder, ray) as keeper:
            told = _order(keeper, config, parent)
            if told is None:  # it was just ending, of another Serve on this Ray perhaps
                time.sleep(0.05)
                continue
            if "error" in told:
                print(told["error"], file=sys.stderr, flush=True)
                return 1
            if keeper.recv(1) == b"" and not _died(folder):
                return 0  # another has taken its place
    return 0


def _order(keeper: socket.socket, config: str, parent: int) -> dict[str, str] | None:
    """The keeper's answer to a configuration; None: it ended before."""
    admin = re.search(r"(?m)^\s*stats socket (\S+)", Path(config).read_text())
    assert admin is not None, "Ray's configuration names HAProxy's socket"
    order = {"load": config, "pid": os.getpid(), "admin": admin[1], "parent": parent}
    answer = b""
    with contextlib.suppress(ConnectionError):
        keeper.sendall(json.dumps(order).encode() + b"\n")
        while not answer.endswith(b"\n") and (part := keeper.recv(4096)):
            answer += part
    return json.loads(answer) if answer.endswith(b"\n") else None


def parent_of(pid: int) -> int:
    """The process that started another one; of Ray's actors it is the node's raylet."""
    status = Path(f"/proc/{pid}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def _keeper(folder: Path, ray: int) -> socket.socket:
    """A connection to the keeper of this folder's HAProxy, which is started where there is none."""
    deadline = time.monotonic() + WAIT
    started = False
    while True:
        found = socket.socket(socket.AF_UNIX)
        try:
            found.connect(str(folder / CONTROL))
            return found
        except OSError:
            found.close()
            if time.monotonic() > deadline:
                raise
        if not started:
            started = True
            command = [sys.executable, "-S", "-m", "serve.haproxy.front_keeper", str(folder), str(ray)]
            with (folder / "keeper.log").open("ab") as log:
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        time.sleep(0.02)


def _died(folder: Path) -> bool:
    """True if the keeper is gone, which was not to end: one that ends goes with this process."""
    time.sleep(0.05)
    probe = socket.socket(socket.AF_UNIX)
    with probe:
        return probe.connect_ex(str(folder / CONTROL)) != 0


def _check(folder: Path, config: str) -> int:
    """HAProxy's own word on the configuration that it would get."""
    front = FrontSettings.read(folder)
    checked = folder / "checked.cfg"
    checked.write_text(front_config(Path(config).read_text(), front, str(folder / "checked.sock")))
    return subprocess.call([front.binary, "-c", "-f", str(checked)], preexec_fn=die_with_parent)


def main() -> None:
    """Launch, or be HAProxy itself for a question about it."""
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    if "-f" not in words:
        binary = FrontSettings.read(folder).binary
        os.execv(binary, [binary, *words])
    os.umask(0o077)
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))
    sys.exit(launch(folder, words))


if __name__ == "__main__":
    main()
