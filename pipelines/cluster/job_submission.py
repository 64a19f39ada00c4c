"""A command as a Ray job, whose output and exit status become those of this process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipelines.cluster.private_ray import DASHBOARD, QUICK, quoted_python, start_private
from pipelines.cluster.ray_internals import await_agent
from resnet.host.closed_pipe import quiet_when_closed
from resnet.host.proxy_exceptions import ask_directly

STOPPED = 130  # exit status, as of Ctrl-C
# A stopped training saves its state, which may take longer than the 3 s that Ray gives a job by default.
PATIENT = {"RAY_JOB_STOP_WAIT_TIME_S": "30"}
AGAIN = 30.0  # seconds in which a lost connection to the cluster is tried again
FINAL = ("SUCCEEDED", "FAILED", "STOPPED")


@contextlib.contextmanager
def submission_server(address: str | None) -> Iterator[tuple[str, bool]]:
    """Where jobs are submitted, and whether that is a private head, which is ended on the way out.

    address: of a cluster that runs; None: a private head is started.
    """
    if address is not None:
        yield address, False
        return
    print("Starting a Ray head on this machine for this job (loopback only).", file=sys.stderr, flush=True)
    context = start_private(**DASHBOARD, log_to_driver=False)
    # What is packed for an upload goes with Ray's folder, also where this process is killed over it.
    tempfile.tempdir = str(Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent)
    try:
        await_agent(context.address_info["node_id"])
        yield f"http://{context.address_info['webui_url']}", True
    finally:
        import ray

        ray.shutdown()


def run_as_job(command: list[str], variables: Mapping[str, str], folder: str | None, address: str | None) -> int:
    """Run a command as a job with these variables, and give its exit status; 130 where it was stopped.

    address: of submission_address(), None: a head of its own. folder: is uploaded, and the job runs in the copy; None:
    nothing is. The job's lines go to standard error, the JSON of its outcome, the last line, to standard output. Ctrl-C
    stops a job on a private head, which ends with this process; on another cluster the job goes on.
    """
    with submission_server(address) as (address, private):
        from ray.job_submission import JobSubmissionClient

        os.environ["RAY_ADDRESS"] = address  # Ray takes it before what it is given
        if "://" in address:
            ask_directly(address.split("://")[1].rpartition(":")[0])
        client = JobSubmissionClient(address)
        environment: dict[str, Any] = {"env_vars": {**QUICK, **PATIENT, **variables}}
        if private:
            environment |= quoted_python()
        if folder is not None:
            environment["working_dir"] = folder
        job = client.submit_job(entrypoint=shlex.join(command), runtime_env=environment)
        print(
            f"{job} runs as a Ray job; `ray job stop {job} --address {address}` stops it", file=sys.stderr, flush=True
        )
        shown = _Output()
        try:
            asyncio.run(_follow(client, job, shown))
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, SIGTERM, SIGHUP
            if not private:
                print(f"{job} goes on: `ray job logs {job} --follow --address {address}`", file=sys.stderr)
                return STOPPED
            print("stopping; a training saves its state first (Ctrl-C again: at once)", file=sys.stderr, flush=True)
            client.stop_job(job)
            asyncio.run(_follow(client, job, shown))
        shown.end()
        return _exit_status(client.get_job_info(job))


def _exit_status(details: Any) -> int:
    """Of the job's own process; 130: it was stopped."""
    if details.status == "STOPPED":
        return STOPPED
    if details.driver_exit_code is None:
        print(f"{details.submission_id} {details.status}: {(details.message or '')[:500]}", file=sys.stderr)
        return 0 if details.status == "SUCCEEDED" else 1
    return details.driver_exit_code if details.driver_exit_code >= 0 else 128 - details.driver_exit_code


async def _follow(client: Any, job: str, shown: _Output) -> None:
    """Show what a job prints until it ends. ConnectionError: the cluster cannot be reached any more."""
    lost: float | None = None
    while True:
        seen = 0
        try:
            async for text in client.tail_job_logs(job):  # from the beginning, each time
                fresh = text[max(0, shown.letters - seen) :]
                seen += len(text)
                shown.add(fresh)
                lost = None
            if client.get_job_status(job) in FINAL:
                return
        except (RuntimeError, OSError) as error:  # what aiohttp and requests throw is one of these
            lost = lost or time.monotonic()
            if time.monotonic() - lost > AGAIN:
                raise ConnectionError(
                    f"the cluster has not answered for {AGAIN:g} seconds, and {job} may go on there: "
                    f"`ray job logs {job} --follow` shows it ({str(error).splitlines()[0]})"
                ) from None
        await asyncio.sleep(0.5)


class _Output:
    """The lines that a job prints, the JSON of its outcome apart: the last line that is an object."""

    def __init__(self) -> None:
        self.letters = 0
        self._rest = ""
        self._outcome: str | None = None

    def add(self, text: str) -> None:
        """More of it."""
        self.letters += len(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._say(line)

    def end(self) -> None:
        """Nothing more comes."""
        if self._rest:
            self._say(self._rest)
        if self._outcome is not None:
            with quiet_when_closed():
                print(self._outcome, flush=True)

    def _say(self, line: str) -> None:
        if self._outcome is not None:  # another line follows: it was not the last
            print(self._outcome, file=sys.stderr)
            self._outcome = None
        if line.startswith('{"') and line.endswith("}"):
            self._outcome = line
        else:
            print(line, file=sys.stderr, flush=True)
