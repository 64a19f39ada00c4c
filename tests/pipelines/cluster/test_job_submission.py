"""A command as a Ray job: its exit status, its lines and its outcome are those of the submitting process."""

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import pytest

from pipelines.cluster import job_submission
from pipelines.cluster.cluster_address import submission_address
from pipelines.cluster.job_submission import run_as_job

LOST = "http://127.0.0.1:1"


@pytest.fixture
def cluster(ray_local: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    address = f"http://{ray_local.address_info['webui_url']}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    return address


def test_status_lines_and_outcome(cluster: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Ray merges both streams and gives 1 for every failure."""
    code = (
        "import os, sys; print('{\"not\": \"last\"}'); print('a line', file=sys.stderr);"
        "print('{\"outcome\": \"' + os.environ['GIVEN'] + '\"}'); sys.exit(3)"
    )
    assert run_as_job([sys.executable, "-c", code], {"GIVEN": "with 'quotes'"}, None, submission_address()) == 3
    out, err = capfd.readouterr()
    assert json.loads(out) == {"outcome": "with 'quotes'"}
    assert "a line" in err
    assert '{"not": "last"}' in err
    assert f"--address {cluster}" in err


def test_a_stopped_job_is_130(cluster: str, capfd: pytest.CaptureFixture[str]) -> None:
    from ray.job_submission import JobSubmissionClient

    def stop() -> None:
        client = JobSubmissionClient(cluster)
        while not (
            running := [job for job in client.list_jobs() if job.status == "RUNNING" and "3599" in job.entrypoint]
        ):
            time.sleep(0.2)
        client.stop_job(running[0].submission_id or "")

    thread = threading.Thread(target=stop)
    thread.start()
    assert run_as_job(["sleep", "3599"], {}, None, submission_address()) == 130
    thread.join()


def test_ctrl_c_leaves_the_job_of_a_shared_cluster(cluster: str, capfd: pytest.CaptureFixture[str]) -> None:
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(cluster)

    def running() -> list[str]:
        jobs = client.list_jobs()
        return [job.submission_id or "" for job in jobs if job.status == "RUNNING" and "3598" in job.entrypoint]

    def interrupt() -> None:
        while not running():
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert run_as_job(["sleep", "3598"], {}, None, submission_address()) == 130
    thread.join()
    (job,) = running()
    assert f"{job} goes on: `ray job logs {job} --follow --address {cluster}`" in capfd.readouterr().err
    client.stop_job(job)


def test_a_lost_cluster_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from ray.job_submission import JobSubmissionClient

    monkeypatch.setattr(job_submission, "AGAIN", 1.0)
    monkeypatch.setattr(JobSubmissionClient, "_check_connection_and_version", lambda *_, **__: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    client = JobSubmissionClient(LOST)
    with pytest.raises(ConnectionError, match=r"has not answered for 1 seconds, and raysubmit_1 may go on there"):
        asyncio.run(job_submission._follow(client, "raysubmit_1", job_submission._Output()))
