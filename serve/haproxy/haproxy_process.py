"""One HAProxy that runs: its end, its own socket, what its statistics tell. Python's own library only."""

from __future__ import annotations

import asyncio
import csv
import ctypes
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """For a child, before it runs its program."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


async def ended(pid: int) -> None:
    """Return when a process has ended, a child of this one or not."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (OSError, AttributeError):  # an old kernel
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.2)
        return
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(fd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


@dataclass(eq=False)
class HaproxyProcess:
    """A HAProxy that runs. admin: path of its own socket, None of the second one."""

    process: subprocess.Popen[bytes]
    config: Path
    admin: Path | None = None
    heard: float = field(default_factory=time.monotonic)

    async def tell(self, command: str) -> str:
        """The answer to a command. OSError, TimeoutError."""
        assert self.admin is not None
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_unix_connection(str(self.admin))
            try:
                writer.write(f"{command}\n".encode())
                answer = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
        self.heard = time.monotonic()
        return answer

    async def pass_over(self) -> list[str]:
        """Let other replicas have what stopped ones hold; the names of those. OSError, TimeoutError."""
        found = stopped_servers(await self.tell("show stat"))
        for server in found:
            await self.tell(f"shutdown sessions server {server}")
        return found

    async def streams(self) -> int:
        """Requests that it has begun with and not ended. 0 where it does not answer: it is about to end."""
        try:
            return (await self.tell("show sess")).count("fe=http_frontend")
        except (OSError, TimeoutError):
            return 0 if self.process.poll() is not None else 1


def stopped_servers(statistics: str) -> list[str]:
    """`backend/server` of those that hold requests, and take connections but answer no look: somebody stopped them.

    Only where another server of the backend answers: on a crowded machine one that is slow looks the same, and what it
    holds would be cut instead of answered late.
    """
    rows = [row for row in csv.DictReader(statistics.removeprefix("# ").splitlines()) if row["svname"] != "BACKEND"]
    answering = {row["pxname"] for row in rows if row["status"].startswith("UP")}
    return [
        f"{row['pxname']}/{row['svname']}"
        for row in rows
        if row["status"].startswith("DOWN")
        and row["check_status"] in ("L7TOUT", "L4TOUT")
        and int(row["scur"] or 0)
        and row["pxname"] in answering
    ]


def describe_end(code: int) -> str:
    """`SIGKILL`, or `status 1`."""
    return signal.Signals(-code).name if code < 0 else f"status {code}"


def remove_folders(folders: list[str], seconds: float = 5.0) -> None:
    """Remove them, again and again: processes that are just ending may write into them."""
    deadline = time.monotonic() + seconds
    while any(Path(folder).exists() for folder in folders) and time.monotonic() < deadline:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.2)
