"""A private Ray that dies before its job: the job ends with a sentence.

Ray's own library ends the process of a driver without a word when its raylet or its GCS is gone, at once or after a
minute of silence.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Mapping

import psutil

from pipelines import stop_signals

PARTS = {"raylet": "its node manager", "gcs_server": "its store"}
SETTLE = 0.2  # seconds in which a job that ends Ray itself has said so
LOOK = 1.0  # seconds between two looks where the system cannot wait for a process


def watch_private() -> None:
    """From here on end this job where a process of the Ray that it has started dies. Nothing in other programs."""
    if not stop_signals.is_job():
        return
    parts = {p.pid: name for p in psutil.Process().children() for name in PARTS if _runs(p, name)}
    threading.Thread(target=_follow, args=(parts,), name="death watch", daemon=True).start()


def _follow(parts: Mapping[int, str]) -> None:
    import ray

    lost = _first_end(parts)
    time.sleep(SETTLE)
    if ray.is_initialized():  # else the job itself has ended Ray
        stop_signals.end_at_once(
            f"Ray on this machine has ended before its job: {PARTS[parts[lost]]} (process {lost}) is gone, killed by "
            f"somebody or for want of memory; {stop_signals.after_stop()}"
        )


def _runs(process: psutil.Process, name: str) -> bool:
    with contextlib.suppress(psutil.Error):
        return any(word.endswith(f"/{name}") for word in process.cmdline()[:1])
    return False


def _first_end(parts: Mapping[int, str]) -> int:
    """The first of some processes to end."""
    files = []
    for pid in parts:
        with contextlib.suppress(OSError, AttributeError):  # gone already, or a system without
            files.append(os.pidfd_open(pid))
    while True:
        select.select(files, [], [], LOOK)
        gone = [pid for pid in parts if not _lives(pid)]
        if gone:
            return gone[0]


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
