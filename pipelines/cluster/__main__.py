"""python -m pipelines.cluster -- python jobs/train_imagenet.py ARGS

Submits a command as a Ray job and streams its output: to the cluster of RAY_ADDRESS, else to the head that
`ray start --head` left on this machine, else to a head of its own that ends with the job.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from pipelines.cluster.connection import running_head
from pipelines.cluster.private_ray import DASHBOARD, QUICK, start_private
from pipelines.cluster.ray_internals import await_agent
from pipelines.tracking.job_environment import passed_on


@contextlib.contextmanager
def head() -> Iterator[dict[str, str]]:
    """Environment in which `ray job submit` reaches a cluster; a private head is ended on the way out."""
    address = os.environ.get("RAY_ADDRESS") or running_head()
    if address:
        yield {**os.environ, "RAY_ADDRESS": address}
        return
    print("Starting a Ray head on this machine for this job (loopback only).", file=sys.stderr, flush=True)
    context = start_private(**DASHBOARD, log_to_driver=False)
    try:
        await_agent(context.address_info["node_id"])
        yield {**os.environ, "RAY_ADDRESS": f"http://{context.address_info['webui_url']}"}
    finally:
        import ray

        ray.shutdown()


def submit(command: list[str]) -> int:
    """Run a command as a Ray job from this folder, stream its output; its exit status (1 for any failure)."""
    private = not (os.environ.get("RAY_ADDRESS") or running_head())
    variables = passed_on(private)
    # In a file of this user's own: the words of a command can be read by every user of the machine.
    with head() as environment, tempfile.NamedTemporaryFile("w", prefix="resnet-job-", suffix=".yaml") as file:
        json.dump({"env_vars": QUICK | variables}, file)
        file.flush()
        ray = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--working-dir", "."]
        return subprocess.call([*ray, "--runtime-env", file.name, "--", *command], env=environment)


if __name__ == "__main__":
    words = sys.argv[1:]
    if not words or words[0] != "--" or len(words) == 1:
        sys.exit(__doc__)
    try:
        sys.exit(submit(words[1:]))
    except ValueError as error:
        print(f"pipelines.cluster: {error}", file=sys.stderr)
        sys.exit(2)
