"""Process 1 of a host of the lab: its own mounts, then it reaps what other processes leave.

    host_init.py DISK VENV NAME

Runs in PID, mount, UTS, IPC and network namespaces of its own (tests/cluster/lab.py). The machine's files are read-only
here, but for what the host has for itself: home and temporary folder (on DISK), shared memory, processes, host name.
The checkout in the home folder, with VENV in it, also lies where VENV's scripts and its editable installation look.
Prints `ready`.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

READ_ONLY, REMOUNT, BIND, RECURSIVE = 1, 32, 4096, 16384
HOME = Path("/home/ubuntu")
PROJECT = HOME / "deep-residual-ray"
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). OSError: it was refused."""
    words = [str(word).encode() if word else None for word in (source, target, kind)]
    if libc.mount(*words, flags, data.encode() if data else None):
        error = ctypes.get_errno()
        raise OSError(error, f"mount {source}: {os.strerror(error)}", str(target))


def opened(path: str | Path) -> str:
    """A path that stays good when something is mounted over it."""
    return f"/proc/self/fd/{os.open(path, os.O_PATH)}"


def bind(source: str | Path, target: str | Path, writable: bool = False) -> None:
    """Let a file or folder appear at another place too."""
    mount(source, target, flags=BIND | RECURSIVE)
    mount("", target, flags=BIND | REMOUNT | (0 if writable else READ_ONLY))


def read_only_machine() -> None:
    """All disks of the machine, seen from here."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split()
        if kind not in ("proc", "sysfs", "devtmpfs", "devpts", "cgroup", "cgroup2") and "rw" in options.split(","):
            kept = sum(flag for name, flag in (("nosuid", 2), ("nodev", 4), ("noexec", 8)) if name in options)
            with contextlib.suppress(OSError):  # under another mount
                mount("", place, flags=BIND | REMOUNT | READ_ONLY | kept)


def furnish(disk: Path, venv: Path, name: str) -> None:
    """Make the namespaces of this process a host."""
    mount("proc", "/proc", "proc")
    socket.sethostname(name)
    places = {key: opened(disk / key) for key in ("home", "tmp", "hosts")}
    environment, python = opened(venv), (Path(sys.base_prefix), opened(sys.base_prefix))
    read_only_machine()
    mount("tmpfs", "/dev/shm", "tmpfs", data="size=3g,mode=1777")
    mount("tmpfs", "/home", "tmpfs")
    HOME.mkdir()
    bind(places["home"], HOME, writable=True)
    bind(places["hosts"], "/etc/hosts")
    bind(environment, PROJECT / ".venv")
    project = opened(PROJECT)
    bind(places["tmp"], "/tmp", writable=True)
    for path, source in (python, (venv.parent, project)):
        if path == venv.parent or not path.exists():
            path.mkdir(parents=True, exist_ok=True)
            bind(source, path)


def main() -> None:
    """Until SIGTERM."""
    disk, venv, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    awaited = {signal.SIGCHLD, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, {*awaited, signal.SIGINT})
    furnish(disk, venv, name)
    print("ready", flush=True)
    while signal.sigwait(awaited) == signal.SIGCHLD:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


if __name__ == "__main__":
    main()
