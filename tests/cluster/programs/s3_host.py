"""An S3 server (moto) with faults, on all addresses of a host: s3_host.py PORT BUCKET MODE_FILE

The file's word, looked at ten times a second: pass; refuse (nobody listens); slow-down (503 SlowDown to everything).
Prints `ready` when the bucket is there.
"""

import asyncio
import contextlib
import sys
import urllib.request
from pathlib import Path

from moto.server import ThreadedMotoServer

SLOW_DOWN = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All bytes from one to the other."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def slow_down(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request is refused as S3 refuses what comes too fast."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"expect: 100-continue" not in head and b"content-length:" in head:
        await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
    lines = ("HTTP/1.1 503 Slow Down", "Content-Type: application/xml", f"Content-Length: {len(SLOW_DOWN)}")
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + SLOW_DOWN)
    await writer.drain()


class Front:
    """What stands before moto."""

    def __init__(self, port: int, behind: int, mode_file: Path) -> None:
        self.port, self.behind, self.mode_file, self.mode = port, behind, mode_file, ""
        self.open = set[asyncio.StreamWriter]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self.mode == "slow-down":
                await slow_down(reader, writer)
            else:
                near = await asyncio.open_connection("127.0.0.1", self.behind)
                await asyncio.gather(pump(reader, near[1]), pump(near[0], writer))
        self.open.discard(writer)
        writer.close()

    async def follow(self) -> None:
        """The file, until this is killed."""
        server = None
        while True:
            wanted = self.mode_file.read_text().strip() if self.mode_file.exists() else "pass"
            if wanted != self.mode:
                self.mode = wanted
                if server is not None:
                    server.close()
                for writer in tuple(self.open):
                    writer.close()
                server = None
                if wanted != "refuse":
                    server = await asyncio.start_server(self.serve, "0.0.0.0", self.port)
                    print("ready", wanted, flush=True)
            await asyncio.sleep(0.1)


def main() -> None:
    """Until it is killed."""
    moto = ThreadedMotoServer("127.0.0.1", 0)
    moto.start()
    behind = moto.get_host_and_port()[1]
    ask = urllib.request.Request(f"http://127.0.0.1:{behind}/{sys.argv[2]}", method="PUT")
    urllib.request.urlopen(ask).close()
    asyncio.run(Front(int(sys.argv[1]), behind, Path(sys.argv[3])).follow())


if __name__ == "__main__":
    main()
