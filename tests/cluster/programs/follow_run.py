"""The steps of a run as its statuses tell them, from any node: follow_run.py RUN, a line of JSON twice a second."""

import json
import sys
import time

from pipelines.cluster.connection import connect
from pipelines.progress import postings


def main(run: str) -> None:
    """Until it is killed."""
    connect(only_running=True)
    import ray

    while True:
        status = postings.last_status(run)
        said = {"step": status.step, "saved": status.saved, "process": status.process} if status else {"step": 0}
        nodes = sum(node["Alive"] for node in ray.nodes())
        print(json.dumps({"at": time.time(), "nodes": nodes, **said}), flush=True)
        time.sleep(0.5)


if __name__ == "__main__":
    main(sys.argv[1])
