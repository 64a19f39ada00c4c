"""A version tried in a process of its own: what a bad one does to it, it does to no replica.

`python -m serve.versions.trial_process` reads a version and settings as JSON on standard input, loads the version,
checks its answers, warms it up, and prints {"refused": null or the reason}. Where memory ends, the kernel ends this
process before any other.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from resnet.frozen import Frozen
from serve.haproxy.haproxy_process import die_with_parent
from serve.settings import Args
from serve.versions.traffic import Version

SECONDS = 600.0  # for a checkpoint to come over a network, and to be compiled by its engine


class TrialOrder(Frozen):
    """The version that is tried, and with what settings."""

    version: Version
    args: Args


def tried(version: Version, args: Args, seconds: float = SECONDS) -> str | None:
    """Load a version in another process; None, or why it cannot be served."""
    order = TrialOrder(version=version, args=args).model_dump_json()
    paths = os.pathsep.join(path for path in sys.path if path)  # a replica finds the project where its job said
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=order,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired:
        return f"it was not loaded within {seconds:g} seconds"
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"the process that tried it was ended by {name}{OUT_OF_MEMORY if name == 'SIGKILL' else ''}"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return f"the process that tried it ended with status {done.returncode}: {last[:200]}"
    return json.loads(lines[-1])["refused"]


OUT_OF_MEMORY = ", as the kernel does where memory ends"


def main() -> None:
    """Try what standard input says."""
    _end_first()
    order = TrialOrder.model_validate_json(sys.stdin.read())
    print(json.dumps({"refused": _attempt(order)}), flush=True)
    os._exit(0)  # engines leave threads


def _end_first() -> None:
    """Be the one that ends where memory ends, end with the replica that asked, and leave the cores to requests."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(OSError, AttributeError):
        die_with_parent()
    os.nice(5)


def _attempt(order: TrialOrder) -> str | None:
    from serve.versions.loaded_model import load_version  # loads torch

    try:
        load_version(order.version, order.args, order.args.name, "trial")
    except Exception as error:  # whatever readers of files and URIs, and engines, raise
        return (str(error).splitlines() or [type(error).__name__])[0][:300]
    return None


if __name__ == "__main__":
    main()
