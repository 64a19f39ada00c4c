"""A notice of the cloud reaches Ray: metadata servers that answer as those of AWS and Google do, and a real Ray."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.cloud import spot_notices

TOKEN = "AQAEAH-token"


class MetadataServer(BaseHTTPRequestHandler):
    """Version 2 of AWS's instance metadata, which needs a token, and Google's, which needs a header."""

    notice: dict[str, str] | None = None
    preempted = "FALSE"

    def answer(self, status: int, text: str = "") -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self) -> None:
        asked = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.answer(200, TOKEN) if asked else self.answer(400)

    def do_GET(self) -> None:
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers.get("X-aws-ec2-metadata-token") != TOKEN:
                self.answer(401)
            elif self.notice is None:
                self.answer(404)
            else:
                self.answer(200, json.dumps(self.notice))
        elif self.path == "/computeMetadata/v1/instance/preempted":
            self.answer(200, self.preempted) if self.headers.get("Metadata-Flavor") == "Google" else self.answer(403)
        else:
            self.answer(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[MetadataServer]]:
    kind = type("Metadata", (MetadataServer,), {})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    place = f"127.0.0.1:{listening.server_address[1]}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{place}")
    monkeypatch.setenv("GCE_METADATA_HOST", place)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # never asked
    yield kind
    listening.shutdown()
    listening.server_close()


def test_aws_says_when(server: type[MetadataServer]) -> None:
    assert spot_notices.seconds_left_on_aws() is None
    server.notice = {"action": "terminate", "time": "2026-11-28T08:22:00Z"}
    noticed = 1795854000.0  # 2026-11-28T08:20:00Z
    assert spot_notices.seconds_left_on_aws(lambda: noticed) == 120.0
    assert spot_notices.seconds_left_on_aws(lambda: noticed + 500) == 0.0


def test_google_says_that_it_is_now(server: type[MetadataServer]) -> None:
    assert spot_notices.seconds_left_on_google() is None
    server.preempted = "TRUE"
    assert spot_notices.seconds_left_on_google() == 30.0


def test_where_no_cloud_answers_it_ends_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    assert spot_notices.main() == 0
    assert "no notice can come" in capsys.readouterr().out


ONE_NODE = """
import os, ray, time
from pipelines.cloud import spot_notices
from pipelines.cluster import private_ray
context = private_ray.start_private(num_cpus=1, object_store_memory=2**27, log_to_driver=False)
os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]

@ray.remote(num_cpus=1)
class Worker:
    def ready(self): return True

worker = Worker.remote()
assert ray.get(worker.ready.remote())  # an idle node would end at once
assert spot_notices.main() == 0
deadlines = ray._private.state.state.get_draining_nodes()
print("DEADLINE", deadlines[ray.get_runtime_context().get_node_id()])
"""


def test_ray_marks_the_node_as_draining_until_the_time_of_the_notice(server: type[MetadataServer]) -> None:
    end = int(time.time()) + 100
    server.notice = {"action": "terminate", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))}
    done = subprocess.run(
        [sys.executable, "-c", ONE_NODE], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (told,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("DEADLINE")]
    assert abs(int(told) / 1000 - end) < 30  # the seconds in which the command started
