#!/usr/bin/env python3
"""Show what runs on a cluster: nodes, free CPUs and GPUs, trainings with their speed, time left, and failures.

    jobs/show_status.py                                            the Ray of RAY_ADDRESS or of this machine
    jobs/show_status.py --every 10                                 again and again, until Ctrl-C
    ray job submit --working-dir . -- python jobs/show_status.py   a cluster that is reached by its dashboard's port

A training that has said nothing for a minute is called silent: a rank hangs, its node is gone, or it is starting anew.
The last line on stdout is the same as JSON.
"""

import sys
import time

from pipelines import command_line
from pipelines.progress.overview import Overview, OverviewOptions, overview, overview_text


def job(argv: list[str]) -> Overview:
    """Look, print, and look again where that is asked for."""
    asked = command_line.parse_arguments(OverviewOptions, None, argv, __doc__)
    from pipelines.cluster import connection

    connection.connect(only_running=True)
    while True:
        seen = overview(asked)
        print(overview_text(seen), file=sys.stderr)
        if asked.every is None:
            return seen
        time.sleep(asked.every)
        print(file=sys.stderr)


if __name__ == "__main__":
    command_line.run_job(job)
