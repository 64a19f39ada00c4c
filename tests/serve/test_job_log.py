"""Lines of the endpoint's processes on the job's standard error or in a file."""

import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve import job_log

REPLICA = """
import logging
from serve import job_log
job_log.send_to_job()
logging.getLogger("serve.access").setLevel(logging.INFO)
logging.getLogger("serve.access").info('{"status": 200}\\n{"status": 400}')
logging.getLogger("serve.versions").warning("50 %% of %s", "it")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("serve").exception("request 7 failed")
logging.getLogger("ray.serve").error("of Ray itself")
"""


@pytest.fixture(autouse=True)
def _address() -> Iterator[None]:
    yield
    os.environ.pop(job_log.SOCKET, None)


def read(file: Path, lines: int) -> list[dict[str, object]]:
    deadline = time.monotonic() + 30
    while not file.exists() or file.read_text().count("\n") < lines:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_another_process_logs_is_json_in_the_jobs_file(tmp_path: Path):
    log = job_log.JobLog(str(tmp_path / "log"))
    assert os.stat(os.path.dirname(log.path)).st_mode & 0o777 == 0o700
    subprocess.run([sys.executable, "-c", REPLICA], check=True)
    one, two, warning, failed, rays = read(tmp_path / "log", 5)
    assert (one, two) == ({"status": 200}, {"status": 400})
    assert (warning["message"], warning["level"]) == ("50 % of it", "WARNING")
    assert "ZeroDivisionError" in str(failed["exception"])
    assert rays["logger"] == "ray.serve"


def test_on_standard_error_where_no_file_is_named(capsys: pytest.CaptureFixture[str]):
    log = job_log.JobLog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.sendto(b"Proxy http_frontend stopped (cumulated conns: FE: 0, BE: 0).\n", log.path)
        other.sendto(b"Server large/large is UP\n", log.path)
        other.sendto(b'{"by": "haproxy"}\n', log.path)
    deadline, said = time.monotonic() + 30, ""
    while said.count("\n") < 2 and time.monotonic() < deadline:
        said += capsys.readouterr().err
        time.sleep(0.02)
    notice, line = said.splitlines()
    assert json.loads(notice)["message"] == "Server large/large is UP"
    assert line == '{"by": "haproxy"}'


def test_many_lines_at_once_arrive_whole(tmp_path: Path):
    log = job_log.JobLog(str(tmp_path / "log"))
    sender = job_log.Sender(log.path, as_they_are=True)
    lines = [json.dumps({"number": number, "path": "é" * 10}) for number in range(2000)]
    for start in range(0, 2000, 400):  # what a replica gathers in a moment
        sender.emit(logging.makeLogRecord({"msg": "\n".join(lines[start : start + 400])}))
        read(tmp_path / "log", start + 400)
    assert [line["number"] for line in read(tmp_path / "log", 2000)] == list(range(2000))


def test_a_job_that_is_busy_makes_nobody_wait_and_what_is_lost_is_counted():
    address = f"/tmp/rst-{os.getpid()}-log.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as job:
        job.bind(address)
        os.environ[job_log.SOCKET] = address
        try:
            sender, sent = job_log.Sender(address, as_they_are=True), 0
            record = logging.makeLogRecord({"msg": "x" * 7000})
            while not sender._lost:
                sender.emit(record)
                sent += 1
                assert sent < 10_000
            sender.emit(record)
            job.recv(99_999)
            for _ in range(sent - 2):
                job.recv(99_999)
            sender.emit(record)
            first, told = job.recv(99_999).decode().splitlines()
            assert len(first) == 7000
            assert json.loads(told)["message"] == "2 lines were lost: the job did not take them in time"
        finally:
            os.unlink(address)


def test_without_a_job_that_listens_the_log_stays_where_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(job_log.SOCKET, "/nowhere/log.sock")
    before = list(logging.getLogger("serve").handlers)
    job_log.send_to_job()
    assert logging.getLogger("serve").handlers == before
