"""A machine ends itself when nothing needed it for long enough; a real Ray says what is needed."""

import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipelines.cloud import idle_end


def test_it_waits_until_the_machine_was_idle_for_the_whole_time() -> None:
    answers = iter([False, True, True, False, False, False, False, False, False, False, False, False, False, False])
    seen = []

    def needed() -> bool:
        seen.append(next(answers))
        return seen[-1]

    began = time.monotonic()
    idle_end.wait_until_idle(needed, minutes=0.2 / 60, every=0.05)
    assert time.monotonic() - began >= 0.2 + 2 * 0.05  # from the last time that it was needed
    assert seen[:3] == [False, True, True]
    assert len(seen) > 4


def test_a_head_is_needed_while_a_job_runs(ray_local: Any) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    dashboard = f"http://{ray_local.address_info['webui_url']}"
    client = JobSubmissionClient(dashboard)
    name = client.submit_job(entrypoint=f"{sys.executable} -c 'import time; time.sleep(60)'")
    try:
        assert idle_end.head_is_needed(dashboard)
    finally:
        client.stop_job(name)
    deadline = time.monotonic() + 60
    while client.get_job_status(name) not in (JobStatus.STOPPED, JobStatus.FAILED):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_head_whose_dashboard_does_not_answer_is_needed_while_ray_runs(
    tmp_path: Path, ray_local: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slow dashboard or a wrong token must not end a training."""
    (tmp_path / "token").write_text("wrong")
    assert idle_end.head_is_needed("http://127.0.0.1:1")
    assert idle_end.head_is_needed(f"http://{ray_local.address_info['webui_url']}", str(tmp_path / "token"))
    assert capsys.readouterr().out.count("the dashboard does not answer") == 2
    monkeypatch.setattr(psutil, "process_iter", lambda _: [])  # no process at all
    assert not idle_end.head_is_needed("http://127.0.0.1:1")


def test_a_worker_is_needed_while_ray_runs_on_it(ray_local: Any) -> None:
    assert idle_end.ray_runs()


def test_the_command_is_run_at_the_end_and_gives_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "process_iter", lambda _: [])
    assert idle_end.main(["worker", "0.001", "--", sys.executable, "-c", "raise SystemExit(5)"]) == 5


@pytest.mark.parametrize("words", [[], ["head"], ["other", "5", "--", "true"], ["head", "x", "--", "true"],
                                   ["head", "5", "--"], ["head", "5", "true", "now"],
                                   ["head", "0", "--", "true"]])  # fmt: skip
def test_a_wrong_command_line_is_one_sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert idle_end.main(words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
