"""The steps of a run as its statuses tell them, from any node: follow_run.py RUN, a line of JSON twice a second."""

import json
import sys
import time

from pipelines.cluster.connection import connect
from pipelines.progress import postings


def main(run: str) -> None:
    """Until it is killed."""
    connect(only_running=True)
    while True:
        status = postings.last_status(run)
        said = {"step": status.step, "saved": status.saved, "workers": status.workers} if status else {"step": 0}
        print(json.dumps({"at": time.time(), **said}), flush=True)
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1])
