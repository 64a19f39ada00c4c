"""Temporary folders of a process: closed to other users, with a short name, removed at its end or by the next one.

What a process leaves that was killed is removed by the next that asks for a folder: each is held by a lock on a file in
it, which the kernel frees when its process is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LOCK = ".held-by-its-process"
SOCKET = 107 if sys.platform == "linux" else 103  # bytes of the longest path of a Unix socket
GONE = 143  # exit status of a process whose folder's holder is gone
LISTENING = 10.0  # seconds after which a new socket has a listener
RANDOM = 8  # letters that mkdtemp adds
_own: list[Path] = []
_held: list[int] = []  # descriptors of locks, kept open until the process ends


def own_folder(prefix: str, *, inside: int = 0, executable: bool = False) -> Path:
    """A new folder, mode 0700, that is removed when this process ends. Leftovers of others are removed first.

    prefix: of its name; inside: bytes of the longest socket's path below it; executable: programs in it are started.
    ValueError: no temporary folder of the machine suits.
    """
    place = _place(SOCKET - inside - len(prefix) - RANDOM - 2, executable)
    remove_leftovers(place)
    remove_dead_sockets()
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _own.append(folder)
    _hold(folder)
    return folder


def remove_own_folders() -> None:
    """Remove this process's folders, before it ends in a way that runs nothing else."""
    for folder in _own:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(place: Path) -> list[Path]:
    """Remove the folders of processes that are gone, of this user only; what was removed."""
    removed = []
    for folder in (lock.parent for lock in place.glob(f"*/{LOCK}")):
        with contextlib.suppress(OSError):
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _is_free(folder / LOCK):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


def remove_dead_sockets() -> list[Path]:
    """Remove folders that Python's multiprocessing made for a socket on which nobody listens any more, of this user
    only; what was removed. Processes that were killed left them: each is empty but for the socket."""
    removed = []
    for folder in Path(tempfile.gettempdir()).glob("pymp-*"):
        with contextlib.suppress(OSError):
            told = folder.lstat()
            sockets = list(folder.iterdir())
            old = time.time() - told.st_mtime > LISTENING
            if told.st_uid == os.getuid() and old and len(sockets) == 1 and not _listens(sockets[0]):
                shutil.rmtree(folder)
                removed.append(folder)
    return removed


def _listens(path: Path) -> bool:
    """True if something may answer at a path. OSError: it is gone.

    Nobody is disturbed: a datagram socket cannot connect to one of streams, and is refused only where there is none. A
    connection that is closed at once ends multiprocessing's fork server, and with it Ray's dashboard.
    """
    if not path.is_socket():
        return True
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:  # another kind of socket, or not for us
            return True
    return True


def end_with(folder: Path) -> None:
    """End this process, at once, when the process that holds a folder is gone."""
    import fcntl

    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)

    def wait() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # the kernel wakes it
        os._exit(GONE)

    threading.Thread(target=wait, name="end-with-head", daemon=True).start()


def _hold(folder: Path) -> None:
    """Lock the folder for this process. The file gets its name when it is locked, so that nobody finds it free."""
    import fcntl

    new = folder / f"{LOCK}.new"
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(folder / LOCK)
    _held.append(descriptor)


def _is_free(lock: Path) -> bool:
    """True if the process that held a lock is gone. OSError: there is no lock: the folder is another program's."""
    import fcntl

    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _place(longest: int, executable: bool) -> Path:
    """The first of the machine's temporary folders that suits. longest: bytes of its path."""
    tried = []
    for place in _places():
        reason = _unfit(place, longest, executable)
        if reason is None:
            return place
        tried.append(f"{place} {reason}")
    raise ValueError(
        f"TMPDIR must name a folder that suits sockets: writable, at most {longest} plain characters; "
        f"{', '.join(tried)}"
    )


def _places() -> Iterator[Path]:
    named = [os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp", "/var/tmp"]
    named += [os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"]
    yield from dict.fromkeys(Path(name).absolute() for name in named if name)


def _unfit(place: Path, longest: int, executable: bool) -> str | None:
    """Why a folder does not suit, in words."""
    if not place.is_dir():
        return "is no folder"
    if len(os.fsencode(place)) > longest:
        return f"has {len(os.fsencode(place))}"
    if not re.fullmatch(r"[A-Za-z0-9_./+-]+", str(place)):  # it becomes part of command lines and configuration files
        return "has others"
    try:
        with tempfile.TemporaryDirectory(prefix="resnet-try-", dir=place) as folder:
            (program := Path(folder, "program")).write_text("#!/bin/sh\n")
            program.chmod(0o700)
            if executable:
                subprocess.run([program], check=False)
    except OSError as error:
        return f"cannot be used ({error.strerror})"
    return None
