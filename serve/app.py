"""The Ray Serve application: replicas of one checkpoint behind HTTP; the only file here that imports ray.

`build` is what a config file names (deploy/serve.yaml); `deploy` is for a job that is connected to a cluster.
"""

# No `from __future__ import annotations`: Ray reads build's annotation at run time, as a class.
import json
import signal
import threading
import time
import urllib.error
import urllib.request

import ray
from fastapi import FastAPI
from prometheus_client.metrics_core import Metric
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.context import _get_global_client

from serve import endpoint
from serve.classifier import Classifier
from serve.inference import Inference
from serve.metrics import Metrics
from serve.settings import Args

APPLICATION = "resnet"
DEPLOYMENT = "classifier"


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class Replica:
    """One process that decodes, computes and answers."""

    def __init__(self, args: Args) -> None:
        self.args = args
        classifier = Classifier(args.checkpoint, precision=args.precision, threads=args.threads)
        replica = serve.get_replica_context().replica_id.unique_id
        self.metrics = Metrics({"model": args.name, "version": args.version, "replica": replica})
        self.inference = Inference(classifier, args, self.metrics)
        self.inference.warm_up()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP interface; Ray Serve asks for it when the model is loaded."""
        return endpoint.build(self.inference, self.args, self.gather, echo_id=False)  # Ray's proxy echoes it

    def families(self) -> list[Metric]:
        """The metrics of this replica."""
        return self.metrics.families()

    async def gather(self) -> list[list[Metric]]:
        """The metrics of all replicas: a scrape reaches one of them, whichever is free."""
        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        try:
            return list(await handle.broadcast("families").results_async(timeout_s=2))
        except (TimeoutError, RayError):
            return [self.metrics.families()]


def build(args: Args) -> serve.Application:
    """The application for a checkpoint, limits and replicas; see Args."""
    scaling = AutoscalingConfig(
        min_replicas=args.min_replicas,
        max_replicas=args.max_replicas,
        initial_replicas=max(1, args.min_replicas),
        target_ongoing_requests=args.target_requests,
        upscale_delay_s=5,
        downscale_delay_s=60,
    )
    options = {"num_cpus": args.cpus, "num_gpus": args.gpus}
    # The replica itself refuses with problem details what is more than max_waiting; Ray's bound is only behind it.
    return Replica.options(
        autoscaling_config=scaling, ray_actor_options=options, max_ongoing_requests=2 * args.max_waiting
    ).bind(args)


def deploy(args: Args, host: str, port: int) -> str:
    """Serve on the connected cluster, and return the URL once it answers. ValueError for a port that is taken."""
    serve.start(http_options={"host": host, "port": port})
    client = _get_global_client()
    assert client is not None  # serve.start made it
    there = client.http_config
    if (there.host, there.port) != (host, port):  # Serve keeps the address that it was started with
        raise ValueError(f"host and port must be {there.host} {there.port}, where Serve runs, got {host} {port}")
    serve.run(build(args), name=APPLICATION)
    local = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{local}:{port}"
    wait_until_ready(url, args.version)
    return url


def wait_until_ready(url: str, version: str, seconds: float = 120.0) -> None:
    """Return when /readyz names the version."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                if json.load(answer).get("version") == version:
                    return
        except (OSError, urllib.error.HTTPError, json.JSONDecodeError):
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{url}/readyz did not answer as version {version} within {seconds:g} seconds")
        time.sleep(0.2)


def stay() -> None:
    """Return at Ctrl-C or SIGTERM, with Serve ended: open requests are answered, replicas leave in order."""
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    while not stopped.wait(1):
        pass
    serve.shutdown()
    ray.shutdown()
