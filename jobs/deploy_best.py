#!/usr/bin/env python3
"""Serve a model over HTTP: python jobs/deploy_best.py [--model resnet@champion | --checkpoint PATH] [OPTIONS]

    jobs/deploy_best.py                                   the registered champion on http://127.0.0.1:8000
    jobs/deploy_best.py --model resnet/3 --port 8080      another registered version
    jobs/deploy_best.py --checkpoint s3://bucket/runs/imagenet-resnet50-B.s0/best --api-key-file keys.txt

On a running cluster (RAY_ADDRESS, or `ray start` on this machine) it returns when the endpoint is ready; else it starts
Ray for itself and serves until Ctrl-C. `serve deploy deploy/serve.yaml` does the same from a file.
"""

import os
import sys
from typing import Any

from pipelines import cli, cluster, tracking
from serve.settings import Deploy


def job(argv: list[str]) -> dict[str, Any]:
    """Deploy, say how to ask, and stay while Ray is this job's own."""
    asked = cli.parse(Deploy, Deploy(), argv, __doc__)
    source, version = (asked.checkpoint, "unregistered") if asked.checkpoint else tracking.resolve(asked.model)
    args = asked.args(source, version)
    private = not (os.environ.get("RAY_ADDRESS") or cluster.running_head())
    if private:
        asked.require_free_port()
    cluster.connect()
    from serve import app

    url = app.deploy(args, asked.host, asked.port)
    print(f"{args.name}, version {version}: {url}\n  curl --data-binary @IMAGE {url}/v1/predict", file=sys.stderr)
    if private:
        app.stay()
    return {"url": url, "model": args.name, "version": version, "checkpoint": args.checkpoint}


if __name__ == "__main__":
    cli.run_job(job)
