"""Lines of JSON from the endpoint's processes on the job's standard error, or in a file.

A replica runs in a worker of Ray, whose output lies in the session's folder and goes with it. Replicas, HAProxy and its
keeper send their lines to a socket of the job instead, as datagrams, which never make a sender wait: what the job does
not take in time is lost, and counted.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import threading
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from resnet.host.temporary_folder import own_folder

SOCKET = "RESNET_SERVE_LOG"  # environment variable: path of the job's socket
NAME = "/log.sock"
DATAGRAM = 60_000  # bytes of one at most
FILE, KEPT = 2**26, 5  # bytes of a file, until another is begun; files kept beside it
NOISE = re.compile(r"Proxy \S+ stopped")  # of each HAProxy that another has taken the place of
RAYS = "ray.serve"  # Ray's own logger: the traceback of what failed in a replica


class JobLog:
    """Takes what the other processes of this job's Ray send, and writes it. Begins before Ray, whose processes inherit
    the address. file: in place of standard error; OSError where it cannot be written."""

    def __init__(self, file: str | None = None) -> None:
        out = logging.StreamHandler(sys.stderr) if file is None else RotatingFileHandler(file, "a", FILE, KEPT)
        out.setFormatter(logging.Formatter("%(message)s"))
        self._out = out
        self.path = f"{own_folder('rl-', inside=len(NAME))}{NAME}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        os.environ[SOCKET] = self.path
        threading.Thread(target=self._read, name="job log", daemon=True).start()

    def _read(self) -> None:
        while True:
            for line in self._socket.recv(2 * DATAGRAM).decode(errors="replace").splitlines():
                if not NOISE.match(line):
                    words = line if line.startswith("{") else _line("NOTICE", line, by="haproxy")
                    self._out.handle(logging.makeLogRecord({"msg": words}))


class Sender(logging.Handler):
    """Sends each record to the job. as_they_are: lines of JSON already, not words of which JSON is to be made."""

    def __init__(self, path: str, as_they_are: bool) -> None:
        super().__init__()
        self._path, self._as_they_are, self._lost = path, as_they_are, 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send it, in parts where it is long."""
        text = record.getMessage() if self._as_they_are else as_json(record)
        part: list[bytes] = []
        for line in (words.encode(errors="replace")[:DATAGRAM] for words in text.splitlines()):
            if part and sum(map(len, part)) + len(line) > DATAGRAM:
                self._send(part)
                part = []
            part.append(line)
        self._send(part)

    def _send(self, lines: list[bytes]) -> None:
        told = f"{self._lost} lines were lost: the job did not take them in time"
        more = [_line("WARNING", told).encode()] if self._lost else []
        try:
            self._socket.sendto(b"\n".join([*lines, *more]), self._path)
            self._lost = 0
        except OSError:  # full, or the job is gone
            self._lost += len(lines)


def as_json(record: logging.LogRecord) -> str:
    """A record as one line."""
    more = {"logger": record.name, "process": record.process}
    if record.exc_info:
        more["exception"] = logging.Formatter().formatException(record.exc_info)
    return _line(record.levelname, record.getMessage(), **more)


def _line(level: str, message: str, **more: object) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"time": when, "level": level, "message": message, "by": "replica"} | more)


def send_to_job() -> None:
    """From here on this process's log goes to the job, where it has one that listens; else it stays as it is."""
    path = os.environ.get(SOCKET)
    if path is None or not Path(path).exists():
        return
    for name in ("serve", "serve.access", RAYS):
        logger = logging.getLogger(name)
        if not any(isinstance(handler, Sender) for handler in logger.handlers):
            sender = Sender(path, as_they_are=name == "serve.access")
            sender.setLevel(logging.INFO if name == "serve.access" else logging.WARNING)
            logger.addHandler(sender)
