"""HAProxy as Ray would start it, before small replicas, without Ray."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from serve.haproxy import environment
from serve.haproxy.front_config import FrontChoices

REPLICA = """
import asyncio, sys
async def answer(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
            size = next((int(l[15:]) for l in head.split("\\r\\n") if l.lower().startswith("content-length:")), 0)
            chunked = "transfer-encoding: chunked" in head.lower()
            while chunked and (part := int(await reader.readline(), 16)):
                await reader.readexactly(part + 2)
                size += part
            await reader.readexactly(2 if chunked else size)
            if not head.startswith("GET /-/healthz"):
                print(size, repr(head), flush=True)
                await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    async with await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]), limit=2**23) as server:
        await server.serve_forever()
asyncio.run(main())
"""
# A raylet, and the actor that it runs, which starts what it is told and says its number
RAYLET = """
import subprocess, sys
for line in sys.stdin:
    if line == "actor\\n":
        actor = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE)
        print(actor.pid, flush=True)
    else:
        actor.stdin.write(line.encode())
        actor.stdin.flush()
"""
ACTOR = """
import subprocess, sys
for line in sys.stdin:
    print(subprocess.Popen(line.split()).pid, flush=True)
"""


@dataclass
class Front:
    """HAProxy's files, and who stands behind and above it."""

    folder: Path
    port: int
    wrapper: Path
    replicas: list[subprocess.Popen[str]]
    raylet: subprocess.Popen[str]
    actor: int = 0

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """What Ray has written."""
        return self.folder / "haproxy.cfg"

    def begin_actor(self) -> None:
        """Let the raylet run a new actor in place of the old one."""
        assert self.raylet.stdin is not None
        assert self.raylet.stdout is not None
        self.raylet.stdin.write("actor\n")
        self.raylet.stdin.flush()
        self.actor = int(self.raylet.stdout.readline())

    def launch(self, *words: object) -> int:
        """Start HAProxy, or a new one in place of the old, as Ray does it; the number of the process that Ray sees."""
        assert self.raylet.stdin is not None
        assert self.raylet.stdout is not None
        command = [self.wrapper, "-db", "-f", self.config, "-dR", *words]
        self.raylet.stdin.write(" ".join(map(str, command)) + "\n")
        self.raylet.stdin.flush()
        pid = int(self.raylet.stdout.readline())
        wait(lambda: f"Pid: {pid}\n" in self.as_ray_asks("show info"))
        return pid

    def as_ray_asks(self, command: str) -> str:
        """What HAProxy's socket answers, where Ray looks for it; "" where there is none."""
        with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
            connection.connect(str(self.folder / "admin.sock"))
            connection.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        return ""

    def ask(self, size: int = 1000, **more: object) -> httpx.Response:
        """A request with a body."""
        return httpx.post(f"{self.url}/v1/predict", content=b"x" * size, timeout=60, **more)  # pyright: ignore[reportArgumentType]

    def processes(self, word: str) -> list[psutil.Process]:
        """Of this instance, with this word in the command."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if any(str(self.folder) in each for each in words) and any(word in each for each in words):
                    found.append(process)
        return found


def wait(true: Callable[[], bool], seconds: float = 30) -> float:
    """Return when it is true: after how many seconds."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def rays_file(folder: Path, port: int, replicas: list[int]) -> str:
    """What Ray 2.60 writes, without its comments."""
    servers = "\n".join(
        f"    server r{n} 127.0.0.1:{n} check observe layer4 error-limit 3 on-error mark-down" for n in replicas
    )
    text = Path(__file__).with_name("rays_haproxy.cfg.in").read_text()
    words = {name: environment.SETTINGS[f"RAY_SERVE_HAPROXY_{name}"] for name in ("RETRY_ON", "RETRIES")}
    inter = environment.SETTINGS["RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER"]
    return text.format(folder=folder, port=port, servers=servers, inter=inter, bufsize=environment.BUFFER, **words)


Fronts = Callable[..., Front]


@pytest.fixture
def fronts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fronts]:
    """fronts(replicas=2, **choices): HAProxy with so many replicas behind it."""
    if reason := environment.refusal():
        pytest.skip(reason)
    # A keeper removes the folder of its Ray's token at the end: not that of the Ray that tests share
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    made: list[Front] = []

    def make(replicas: int = 2, private: bool = True, **choices: object) -> Front:
        folder = Path(f"/tmp/rst-{os.getpid()}-{len(made)}-{time.monotonic_ns() % 10**6}")  # short, for sockets
        folder.mkdir()
        port, *ports = environment.free_ports(1 + replicas)
        command = [sys.executable, "-c", REPLICA]
        behind = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in ports]
        for number in ports:
            wait(lambda number=number: socket.socket().connect_ex(("127.0.0.1", number)) == 0)
        given = FrontChoices(**choices)  # pyright: ignore[reportArgumentType]
        wrapper = environment.write_files(folder, environment.binary(), given, private)
        (folder / "haproxy.cfg").write_text(rays_file(folder, port, ports))
        raylet = subprocess.Popen(
            [sys.executable, "-c", RAYLET, ACTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        front = Front(folder, port, wrapper, behind, raylet)
        made.append(front)
        front.begin_actor()
        return front

    yield make
    for front in made:
        for process in [front.raylet, *front.replicas]:
            with contextlib.suppress(OSError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.kill(front.actor, signal.SIGKILL)
        wait(lambda front=front: not front.processes("haproxy"))
