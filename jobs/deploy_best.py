#!/usr/bin/env python3
"""Serve a model over HTTP: python jobs/deploy_best.py [--model resnet@champion | --checkpoint PATH] [OPTIONS]

    jobs/deploy_best.py                                   the registered champion on http://127.0.0.1:8000
    jobs/deploy_best.py --model resnet/3 --port 8080      another registered version
    jobs/deploy_best.py --checkpoint s3://bucket/best     not registered; or torchvision's weights, with --network
    jobs/deploy_best.py --canary 4=10%                    version 4 answers a tenth; then --promote or --rollback

On a running cluster (RAY_ADDRESS, `ray start`) it returns when the endpoint is ready, or stays with --follow; else it
starts Ray for itself and serves until Ctrl-C. While it stays, it serves what the registry says.
"""

import os
from typing import Any

from pipelines import cli, cluster, registry
from serve import haproxy
from serve.settings import Deploy


def job(argv: list[str]) -> dict[str, Any]:
    """Deploy, say how to ask, and stay while Ray is this job's own."""
    asked = cli.parse(Deploy, Deploy(), argv, __doc__)
    steered = registry.steer(asked.model, asked.canary, promote=asked.promote, rollback=asked.rollback)
    args, traffic = asked.resolved(registry.traffic(asked.model, asked.checkpoint, asked.network, asked.preprocess))
    if private := not (os.environ.get("RAY_ADDRESS") or cluster.running_head()):
        if steered:
            return steered  # whatever serves the model follows the registry
        asked.require_free_port()
        haproxy.prepare(asked.proxy, asked.max_waiting, asked.timeout)
    cluster.connect()
    from serve import app  # reads the settings above when it is imported

    follower = app.follower(asked, registry.traffic, registry.note_verdict)
    return app.follow_once(follower, steered) if steered else app.present(asked, args, traffic, follower, private)


if __name__ == "__main__":
    cli.run_job(job)
