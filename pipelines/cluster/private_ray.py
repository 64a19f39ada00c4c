"""A private Ray on this machine's loopback interface, which ends with its process."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pipelines import stop_signals
from pipelines.cluster import ray_internals
from pipelines.cluster.death_watch import watch_private
from resnet.host.cpu_quota import usable_cores
from resnet.host.temporary_folder import own_folder

# Ray's own default is two seconds between two looks of the controller at its workers, the end of a training included.
QUICK = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1", "RAY_USAGE_STATS_ENABLED": "0"}
# Ours to show: progress, tables, errors. Ray Tune's own reports would stand between them.
QUIET = {"RAY_AIR_NEW_OUTPUT": "0", "RAY_DATA_LOG_LEVEL": "ERROR", "RAY_worker_maximum_startup_concurrency": "4"}
# What Ray's own processes take while a network computes, which has all cores, is a loss of speed. A Ray that ends with
# its job is scraped by nobody (metrics: 2 % of a core), has memory and disk looked at once in one and two seconds in
# place of four and ten times a second (0.2 %), and ends workers that have had nothing to do (0.5 % each). Its agent
# measures every process every five seconds, and looks twice a second whether Ray is still there (0.1 %).
SPARING = {
    "RAY_enable_metrics_collection": "0",
    "RAY_memory_monitor_refresh_ms": "1000",
    "RAY_local_fs_monitor_interval_ms": "2000",
    "RAY_num_workers_soft_limit": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "15000",
    "REPORTER_UPDATE_INTERVAL_MS": "30000",
    "RAY_DASHBOARD_AGENT_CHECK_PARENT_INTERVAL_S": "2",
}
TO_ALL = frozenset({signal.SIGTERM, signal.SIGHUP})
ALONE = "RESNET_RAY_ALONE"  # set where Ray is one machine, and stays one
DASHBOARD: dict[str, Any] = {"include_dashboard": True, "dashboard_host": "127.0.0.1"}
# Workers' own lines would bury the progress; they are in the session's log files, and here if they are asked for.
SESSIONS = "r"  # below the private folder: Ray opens its own to every user
LONGEST = f"/{SESSIONS}/session_2026-11-27_20-19-00_123456_1234567/sockets/plasma_store"  # of a session's sockets
LOGS = bool(os.environ.get("RESNET_WORKER_LOGS"))


def start_private(shielded: bool = False, **options: Any) -> Any:
    """Start Ray on this machine, on the loopback interface only, with a token of its own. Ends with the process.

    shielded: no process of Ray ends by a signal that `timeout`, a terminal or systemd sends to all at once.
    """
    folder = f"{private_folder()}/{SESSIONS}"
    # One machine is not taken away from itself; the actor that watches for that is one more process to start.
    os.environ.update({"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", ALONE: "1"})
    import ray

    settings = {
        "num_cpus": usable_cores(),  # Ray knows of no affinity, and takes half a core for none
        "include_dashboard": False,
        "logging_level": logging.WARNING,
        "log_to_driver": LOGS,
        "_temp_dir": folder,
        "runtime_env": quoted_python() or None,
    } | options
    with _blocked(TO_ALL if shielded else frozenset()):
        context: Any = ray.init(address="local", **settings)
    end_in_order()  # Ray has set a handler of its own, which prints a trace and ends at once
    _sockets.update(_socket_folders())  # now: whoever calls ray.shutdown() ends those that know
    # Where a job looks first; without it, it takes any Ray that runs on the machine, and waits for ever at its door.
    ray_internals.note_address(context.address_info["gcs_address"], folder)
    watch_private()
    return context


def quoted_python() -> dict[str, str]:
    """Part of a runtime environment: this Python as a shell reads it. Empty where its path needs no quotes.

    Ray starts a worker that has an environment of its own by `bash -c "exec PYTHON ..."`: of a path with a space it
    takes what is before it, and tries again for ever.
    """
    quoted = shlex.quote(sys.executable)
    return {} if quoted == sys.executable else {"py_executable": quoted}


@contextlib.contextmanager
def _blocked(numbers: frozenset[signal.Signals]) -> Iterator[None]:
    """Within: what this process starts never hears these signals, nor does what that starts. Ray itself blocks SIGINT
    so; by SIGTERM its node manager ends at once, with what the replicas had in progress."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def private_folder() -> Path:
    """A folder for a Ray of this process's own; from here on this process starts Ray on the loopback interface only.

    The folder holds the token that guards it. At exit Ray is ended and the folder removed; where the process is killed,
    the next one removes it.
    """
    folder = own_folder("resnet-", inside=len(LONGEST))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ.update(QUICK | QUIET | SPARING | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)})
    # A job's `python` is the one on the head's PATH.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    ray_internals.stay_on_loopback(LOGS)
    end_in_order()  # while Ray starts, too
    atexit.register(_end_private)
    stop_signals.before_ending_at_once(_kill_private)
    return folder


def end_in_order() -> None:
    """Let a signal that would end this process at once end it like Ctrl-C, so that Ray and its folder go too.

    SIGHUP comes from a terminal that is closed, SIGTERM from a scheduler; what is set otherwise (nohup) stays.
    """
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGHUP, signal.SIGTERM):
            if signal.getsignal(name) == signal.SIG_DFL:
                _default.add(name)
            if name in _default:
                signal.signal(name, _stop)


_default: set[signal.Signals] = set()  # what nobody had set before this module did


def _stop(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _end_private() -> None:
    """End Ray before its folder is removed, or its processes would write it anew. Another Ctrl-C does not stop this."""
    import ray

    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(name, signal.SIG_IGN)
    _sockets.update(_socket_folders())
    ray.shutdown()
    _kill_private()  # what Ray does not know yet, where its start was interrupted, would write the folder anew


def _kill_private() -> None:
    """End Ray's processes without a word to them, wait until they are gone, and remove the folders of their sockets.

    Ray's own folder goes with this process: resnet/host/temporary_folder.py.
    """
    _sockets.update(_socket_folders())
    children = _children()
    for process in children:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(children, timeout=3)
    for folder in _sockets:
        shutil.rmtree(folder, ignore_errors=True)


_sockets: set[Path] = set()  # folders that are removed when Ray has ended


def _children() -> list[psutil.Process]:
    """Ray's processes: this one's children and theirs."""
    return psutil.Process().children(recursive=True)


def _socket_folders() -> set[Path]:
    """Folders that multiprocessing made for sockets of Ray's processes. Ray kills its dashboard, which has one, and so
    nobody removes it."""
    found: set[Path] = set()
    for process in _children():
        with contextlib.suppress(psutil.Error):
            places = [Path(str(socket.laddr)).parent for socket in process.net_connections("unix")]
            found |= {place for place in places if place.name.startswith("pymp-")}
    return found
