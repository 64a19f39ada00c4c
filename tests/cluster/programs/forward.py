"""One end of a tunnel, as ssh has it: forward.py SOCKET PORT in|out

out: listens on a Unix socket, and passes on to this port of its own network's loopback. in: the other way round.
"""

import asyncio
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All bytes from one to the other."""
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def main(socket: str, port: int, inwards: bool) -> None:
    """Until it is killed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other = asyncio.open_unix_connection(socket) if inwards else asyncio.open_connection("127.0.0.1", port)
        try:
            far_reader, far_writer = await other
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    if inwards:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
    else:
        server = await asyncio.start_unix_server(serve, socket)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "in"))
