"""An S3 server on the loopback interface (moto), empty whenever a test begins."""

import contextlib
import urllib.request
from collections.abc import Iterator

import pytest
from pyarrow import fs

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@contextlib.contextmanager
def s3_server(bucket: str, port: int = 0) -> Iterator[str]:
    """Within: a server with this bucket alone, and keys for it in the environment. Gives host and port.

    All of moto's servers in a process share one store, so what an earlier test left there goes first.
    """
    with pytest.MonkeyPatch.context() as patch, running(port) as address:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        ask = urllib.request.Request(f"http://{address}/moto-api/reset", method="POST")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ask) as answer:
            assert answer.status == 200
        options = f"{options_of(address)}&allow_bucket_creation=true"
        fs.FileSystem.from_uri(f"s3://{bucket}?{options}")[0].create_dir(bucket)
        yield address


@contextlib.contextmanager
def running(port: int = 0) -> Iterator[str]:
    """Within: a server with what moto's store holds. Gives host and port."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer("127.0.0.1", port)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"{host}:{port}"
    finally:
        server.stop()


def options_of(address: str) -> str:
    """What Arrow wants behind the question mark of a URI."""
    return f"endpoint_override={address}&scheme=http&region=us-east-1"
