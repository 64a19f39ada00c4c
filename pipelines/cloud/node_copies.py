"""python -m pipelines.cloud.node_copies logs TARGET | database FILE TARGET | restore FILE TARGET

Copies into a bucket what would be lost with a rented machine: Ray's logs, and on the head MLflow's SQLite database.
Every five minutes, and once more when it is told to end. `restore` brings the database back where the file is absent.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from pipelines.storage import Folder

EVERY = 300.0  # seconds
LOGS = "/tmp/ray/session_latest/logs"


def copy_changed(source: Path, target: Folder, known: dict[str, tuple[int, int]]) -> int:
    """Copy the files below a folder that changed since the last call; how many.

    known: size and time of what was copied, by name; kept by the caller. A session of Ray has a folder of its own.
    """
    session = source.resolve().parent.name
    copied = 0
    for path in sorted(source.rglob("*")):
        try:
            if path.is_symlink() or not path.is_file():
                continue
            state = path.stat()
            name = f"{session}/{path.relative_to(source)}"
            stamp = state.st_size, state.st_mtime_ns
            if known.get(name) != stamp and state.st_size:
                with open(path, "rb") as file, target.writing(name) as copy:
                    shutil.copyfileobj(file, copy)
                known[name] = stamp
                copied += 1
        except FileNotFoundError:  # Ray turned the log over meanwhile
            continue
    return copied


def copy_database(database: Path, target: Folder) -> bool:
    """Copy a SQLite database as it is between two writes; whether there was one."""
    if not database.is_file():
        return False
    with tempfile.TemporaryDirectory(dir=database.parent) as folder:
        whole = Path(folder) / database.name
        before, after = sqlite3.connect(database), sqlite3.connect(whole)
        try:
            before.backup(after)
        finally:
            before.close()
            after.close()
        with open(whole, "rb") as file, target.writing(database.name) as copy:
            shutil.copyfileobj(file, copy)
    return True


def restore_database(database: Path, target: Folder) -> bool:
    """Bring a database back from its copy where the file is absent; whether that was done."""
    if database.exists() or database.name not in target.files():
        return False
    database.parent.mkdir(parents=True, exist_ok=True)
    part = database.with_suffix(".part")
    part.write_bytes(target.read(database.name))
    part.replace(database)
    return True


def repeat(copy: Callable[[], object], every: float = EVERY) -> None:
    """Copy again and again until SIGTERM or Ctrl-C, and then once more. A bucket that is away is tried again."""
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    while True:
        last = ended.is_set()
        try:
            copy()
        except OSError as error:
            print(f"could not copy, and will try again: {error}", flush=True)
        if last:
            return
        ended.wait(every)


def main(words: list[str]) -> int:
    """Do what the command line says; 2 and a sentence where it says nothing known."""
    match words:
        case ["logs", target]:
            known: dict[str, tuple[int, int]] = {}
            repeat(lambda: copy_changed(Path(LOGS), Folder(target), known))
        case ["database", file, target]:
            repeat(lambda: copy_database(Path(file).expanduser(), Folder(target)))
        case ["restore", file, target]:
            done = restore_database(Path(file).expanduser(), Folder(target))
            print(f"{file}: {'brought back from' if done else 'nothing to bring back from'} {target}")
        case _:
            usage = "`logs TARGET`, `database FILE TARGET` or `restore FILE TARGET`"
            print(f"must be called as {usage}, got {' '.join(words)!r}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
