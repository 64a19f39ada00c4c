"""python -m pipelines.cluster -- python jobs/train_imagenet.py ARGS

Submits a command as a Ray job and streams its output: to the cluster of RAY_ADDRESS, else to the head that
`ray start --head` left on this machine, else to a head of its own that ends with the job.
"""

from __future__ import annotations

import sys

from pipelines.cluster.connection import submit

if __name__ == "__main__":
    words = sys.argv[1:]
    if not words or words[0] != "--" or len(words) == 1:
        sys.exit(__doc__)
    try:
        sys.exit(submit(words[1:]))
    except ValueError as error:
        print(f"pipelines.cluster.connection: {error}", file=sys.stderr)
        sys.exit(2)
