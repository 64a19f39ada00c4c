"""The keeper of HAProxy: a process of each node that starts it, starts it again where it died, and ends it at the end.

`python -m serve.haproxy.front_keeper FOLDER RAYLET`, the number of that process. Ray's own keeper is an actor that Ray
looks at every ten seconds: a HAProxy that was killed came back after half a minute, and one whose actor was killed kept
the port for ever. This one outlives the actor, and ends with the node's Ray. What Ray starts in HAProxy's place
(launcher.py) hands over the configuration, and stands for HAProxy while this one runs it. Python's own library only: it
starts in 0.1 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve.haproxy.front_config import FrontSettings, front_config, large_config, only_forgets
from serve.haproxy.front_keys import FrontKeys
from serve.haproxy.haproxy_process import HaproxyProcess, describe_end, die_with_parent, ended, remove_folders

CONTROL = "front.sock"
STARTUP = 30.0  # seconds for a HAProxy to answer
PATIENCE = 90.0  # seconds without Ray's actor until its node is taken for given up
FIRST, TOGETHER = 0.005, 5.0  # seconds from the launcher's end to the actor's where Ray ends them
SILENCE = 10.0  # seconds without a word of HAProxy, after which it is ended: somebody has stopped it


class FrontKeeper:
    """Keeps HAProxy running for one node."""

    def __init__(self, folder: Path, ray: int) -> None:
        """ray: the node's raylet, with which this one ends."""
        self.folder, self.front, self.ray = folder, FrontSettings.read(folder), ray
        self.current: HaproxyProcess | None = None
        self.large: HaproxyProcess | None = None
        self.older: list[HaproxyProcess] = []
        self.rays: Path | None = None  # Ray's configuration file
        self.launcher: tuple[int, asyncio.StreamWriter] | None = None
        self.closing = self.ray_is_gone = False
        self.actor, self.text = 0, ""  # whose configuration holds, and what it is
        self.over = asyncio.Event()
        self._generation = 0
        self._loading = asyncio.Lock()
        self._admin: tuple[str, asyncio.Server] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watched: set[int] = set()
        self._gone: dict[str, float] = {}  # launcher, actor: when it ended
        self.keys = FrontKeys(self.front.keys, folder / "keys.lst")

    async def run(self) -> None:
        """Until Ray is gone, or somebody says so."""
        control = self.folder / CONTROL
        control.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._control, str(control))
        control.chmod(0o600)
        self._begin(self._look())
        self._begin(self._after(self.ray, self._ray_ended))
        await self.over.wait()
        server.close()
        self._end()

    # --- Ray's launcher and the job ---------------------------------------------------------------------------------

    async def _control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one order a line, as JSON."""
        loaded = None
        with contextlib.suppress(ConnectionError, json.JSONDecodeError):
            while line := await reader.readline():
                order = json.loads(line)
                try:
                    answer = await self._obey(order, writer)
                    loaded = order["pid"] if "load" in order else loaded
                except (OSError, RuntimeError, TimeoutError) as error:
                    answer = {"error": str(error)}
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()
        if loaded is not None and self.launcher is not None and self.launcher[0] == loaded:
            self.launcher = None
            self._gone["launcher"] = time.monotonic()
            self._close_admin()  # Ray sees that something is wrong, and begins anew

    async def _obey(self, order: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        if "load" in order:
            if not self._is_to_wait(order["parent"], Path(order["load"])):
                await self._load(Path(order["load"]))
            before, self.launcher = self.launcher, (order["pid"], writer)
            if before is not None and before[0] != order["pid"]:
                before[1].close()
            await self._open_admin(order["admin"])
            self.actor = order["parent"]
            self._watch(self.actor)
            return {"ok": True}
        if "close" in order:
            self.closing = True
            if self.rays is not None:
                await self._load(self.rays)
            return {"ok": True}
        if "busy" in order:
            return {"streams": sum([await worker.streams() for worker in self._first_ones()])}
        if "end" in order:
            self.over.set()
        return {"ok": True}

    def _is_to_wait(self, actor: int, rays: Path) -> bool:
        """True if a configuration without routes is that of a new actor, which has not heard yet where replicas are:
        with the old one requests go on."""
        runs = self.current is not None and self.current.process.poll() is None
        return runs and actor != self.actor and only_forgets(rays.read_text(), self.text)

    def _watch(self, actor: int) -> None:
        """Notice where Ray's actor ends."""
        self._gone.clear()
        if actor not in self._watched:
            self._watched.add(actor)
            self._begin(self._after(actor, lambda: self._gone.update(actor=time.monotonic())))

    async def _after(self, pid: int, then: Callable[[], None]) -> None:
        await ended(pid)
        self._watched.discard(pid)
        then()

    def _ray_ended(self) -> None:
        self.ray_is_gone = True
        self.over.set()

    async def _open_admin(self, path: str) -> None:
        """Answer Ray at the path where it expects HAProxy."""
        self._close_admin()
        Path(path).unlink(missing_ok=True)
        self._admin = path, await asyncio.start_unix_server(self._as_haproxy, path)

    def _close_admin(self) -> None:
        if self._admin is not None:
            path, server = self._admin
            self._admin = None
            server.close()
            Path(path).unlink(missing_ok=True)

    async def _as_haproxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ray's question, HAProxy's answer; the process that Ray knows is the launcher."""
        with contextlib.suppress(OSError, TimeoutError):
            command = (await reader.readline()).decode().strip()
            if self.current is not None and self.launcher is not None:
                answer = await self.current.tell(command)
                writer.write(re.sub(r"(?m)^Pid: \d+$", f"Pid: {self.launcher[0]}", answer).encode())
                await writer.drain()
        writer.close()

    # --- HAProxy ----------------------------------------------------------------------------------------------------

    def _first_ones(self) -> list[HaproxyProcess]:
        return [*self.older, *([self.current] if self.current else [])]

    async def _load(self, rays: Path) -> None:
        """Let a new HAProxy take over with this configuration. RuntimeError: it did not start; the old one stays."""
        async with self._loading:
            self.rays, before = rays, self.current
            self.keys.read()
            if self.large is None:
                config = self.folder / "large.cfg"
                config.write_text(large_config(self.front))
                self.large = self._start(config, None, huge=True)
            self.current = await self._started(before)
            if before is not None:
                self.older.append(before)

    async def _started(self, before: HaproxyProcess | None) -> HaproxyProcess:
        """A new HAProxy that answers. before: hands it the sockets that it listens on, and ends when it is done."""
        assert self.rays is not None
        self._generation += 1
        config, admin = (self.folder / f"front-{self._generation}.{end}" for end in ("cfg", "sock"))
        self.text = self.rays.read_text()
        config.write_text(front_config(self.text, self.front, str(admin), self.closing))
        handed = []
        if before is not None and before.process.poll() is None:
            handed = ["-x", str(before.admin), "-sf", str(before.process.pid)]
        worker = self._start(config, admin, handed)
        deadline = time.monotonic() + STARTUP
        while time.monotonic() < deadline and worker.process.poll() is None:
            with contextlib.suppress(OSError, TimeoutError):
                if f"Pid: {worker.process.pid}\n" in await worker.tell("show info"):
                    return worker
            await asyncio.sleep(0.02)
        worker.process.kill()
        said = (self.folder / "haproxy.log").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"HAProxy did not start: {' '.join(said[-3:])[-400:]}")

    def _start(
        self, config: Path, admin: Path | None, words: list[str] | None = None, huge: bool = False
    ) -> HaproxyProcess:
        pages = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} if huge else {}
        log = self.folder / ("large.log" if huge else "haproxy.log")
        with log.open("wb") as file:
            process = subprocess.Popen(
                [self.front.binary, "-db", "-f", str(config), *(words or [])],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=os.environ | pages,
                preexec_fn=die_with_parent,
            )
        worker = HaproxyProcess(process, config, admin)
        self._begin(self._supervise(worker))
        return worker

    async def _supervise(self, worker: HaproxyProcess) -> None:
        """When it ends: start another one, unless it was to end."""
        started = time.monotonic()
        await ended(worker.process.pid)
        code = worker.process.wait()
        async with self._loading:  # by which it may have been replaced, and its end was asked for
            wanted = worker in (self.current, self.large)
            if worker in self.older:
                self.older.remove(worker)
        if not wanted:
            worker.config.unlink(missing_ok=True)
            if worker.admin is not None:
                worker.admin.unlink(missing_ok=True)
            return
        self.say(f"HAProxy ended by {describe_end(code)}, and is started again", pid=worker.process.pid)
        if time.monotonic() - started < 1:
            await asyncio.sleep(1)
        async with self._loading:
            if worker is self.large:
                self.large = self._start(worker.config, None, huge=True)
            elif worker is self.current:
                await self._again()

    async def _again(self) -> None:
        """Until it runs: the port may be taken for a moment."""
        while not self.over.is_set():
            try:
                self.current = await self._started(None)
                return
            except RuntimeError as error:
                self.say(str(error))
                await asyncio.sleep(1)

    # --- Once a second ----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            launcher, actor = self._gone.get("launcher"), self._gone.get("actor")
            if actor is not None:
                by_ray = self.launcher is None and launcher is not None and FIRST < actor - launcher < TOGETHER
                if by_ray or now - actor > PATIENCE:
                    self.over.set()  # Serve was ended, and Ray goes on
            if self.current is not None and self.current.process.poll() is None:
                await self._ping(self.current)
            await self.keys.renew(self._first_ones())

    async def _ping(self, worker: HaproxyProcess) -> None:
        """Look after one that runs: what a stopped replica holds goes to another; one that says nothing is ended.

        HAProxy itself would, told so, end the requests of a killed replica as well, which it has begun to repeat.
        """
        try:
            for server in await worker.pass_over():
                self.say(f"{server} does not answer; its requests go to another")
        except (OSError, TimeoutError):
            if time.monotonic() - worker.heard > SILENCE and worker is self.current:
                self.say("HAProxy does not answer and is ended", pid=worker.process.pid)
                worker.process.kill()

    # --- The end and the log ----------------------------------------------------------------------------------------

    def say(self, message: str, **more: Any) -> None:
        """A line for the operator."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = json.dumps({"time": when, "level": "WARNING", "message": message, "by": "front", **more})
        if self.front.log is None:
            print(line, file=sys.stderr, flush=True)
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as job:
            job.setblocking(False)
            job.sendto(line.encode(), self.front.log)

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _end(self) -> None:
        """End every HAProxy. Where a private Ray is gone, remove its folders: its job may have been killed."""
        for worker in [*self._first_ones(), *([self.large] if self.large else [])]:
            worker.process.kill()
        self._close_admin()
        if self.launcher is not None:
            with contextlib.suppress(OSError):
                os.kill(self.launcher[0], signal.SIGKILL)
        if self.front.private and self.ray_is_gone:
            token = os.environ.get("RAY_AUTH_TOKEN_PATH")
            remove_folders([self.front.folder, *([os.path.dirname(token)] if token else [])])
        else:
            (self.folder / CONTROL).unlink(missing_ok=True)


def main() -> None:
    """Keep HAProxy. A signal to a whole group or session of processes is not for this one."""
    os.umask(0o077)
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    asyncio.run(FrontKeeper(Path(sys.argv[1]), int(sys.argv[2])).run())


if __name__ == "__main__":
    main()
