"""python -m pipelines.cluster -- python jobs/train_imagenet.py ARGS

Submits a command as a Ray job and shows its output: to the cluster of RAY_ADDRESS, else to the head that
`ray start --head` left on this machine, else to a head of its own that ends with the job. The exit status is the
command's own, 130 where it was stopped.
"""

from __future__ import annotations

import os
import sys

from pipelines import provenance
from pipelines.cluster import cluster_address
from pipelines.cluster.job_submission import run_as_job
from pipelines.tracking.job_environment import passed_on


def main() -> None:
    """Submit the command behind `--`."""
    words = sys.argv[1:]
    if not words or words[0] != "--" or len(words) == 1:
        sys.exit(__doc__)
    prog = "pipelines.cluster" if sys.argv[0].endswith("__main__.py") else sys.argv[0]
    try:
        address = cluster_address.submission_address()
        here = address is None or cluster_address.is_here(address)
        if not here and "RESNET_HOME" in os.environ:
            print("RESNET_HOME is a place of this machine, and not passed on to the cluster", file=sys.stderr)
        # A checkout goes with its job; what is installed is on the cluster already.
        folder = "." if (provenance.ROOT / "pyproject.toml").exists() else None
        sys.exit(run_as_job(words[1:], passed_on(address is None, here), folder, address))
    except (ValueError, ConnectionError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ValueError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
