#!/usr/bin/env python3
"""Serve a model over HTTP: python jobs/deploy_best.py [--model resnet@champion | --checkpoint PATH] [OPTIONS]

    jobs/deploy_best.py                                   the registered champion on http://127.0.0.1:8000
    jobs/deploy_best.py --model resnet/3 --port 8080      another registered version
    jobs/deploy_best.py --checkpoint s3://bucket/best     not registered; or torchvision's weights, with --network
    jobs/deploy_best.py --canary 4=10%                    version 4 answers a tenth; then --promote or --rollback
    jobs/deploy_best.py --shadow 5=20% --promote-after 1h      5 computes a fifth too, and takes over if it is good

On a running cluster (RAY_ADDRESS, `ray start`) it returns when the endpoint is ready, or stays with --follow; else it
starts Ray for itself and serves until Ctrl-C. While it stays, it serves what the registry says.
"""

from pipelines import command_line
from pipelines.cluster import cluster_address, connection
from pipelines.models import canary_alias
from serve.deploy_settings import Deploy


def job(argv: list[str]) -> dict[str, object]:
    """Deploy, say how to ask, and stay while Ray is this job's own."""
    asked = command_line.parse_arguments(Deploy, Deploy(), argv, __doc__)
    beside = canary_alias.Beside(asked.canary, asked.shadow, asked.promote_after)
    steered = canary_alias.steer(asked.model, beside, promote=asked.promote, rollback=asked.rollback)
    args, traffic = asked.resolved(canary_alias.traffic(asked.model, asked.checkpoint, asked.network, asked.preprocess))
    private = cluster_address.cluster_address() is None
    if private and steered:
        return steered  # whatever serves the model follows the registry
    if not steered:
        asked.prepare(args, private)
    connection.connect(shielded=True)
    from serve.deployment import follow_once, follower, present  # reads the settings above when it is imported

    registry = canary_alias.traffic, canary_alias.note_verdict, canary_alias.note_refusal, canary_alias.end_one
    following = follower(asked, *registry)
    return follow_once(following, steered) if steered else present(asked, args, traffic, following, private)


if __name__ == "__main__":
    command_line.run_job(job, "the same command begins anew")
