"""The Ray Serve application: replicas of one checkpoint behind HTTP. Only this file and serve/versions/rollout.py
import ray.

`build` is what a config file names (deploy/serve.yaml); `deploy` is for a job that is connected to a cluster.
"""

# No `from __future__ import annotations`: Ray reads build's annotation at run time, as a class.
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

import ray
from fastapi import FastAPI
from prometheus_client.metrics_core import Metric
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig
from ray.serve.context import _get_global_client
from ray.util import list_named_actors

from resnet.host import glibc_allocator
from serve.api import application
from serve.haproxy import environment
from serve.settings import Args, Deploy
from serve.versions import rollout
from serve.versions.rollout import APPLICATION, DEPLOYMENT, Deployed, Follower, State
from serve.versions.served_models import Models
from serve.versions.traffic import Traffic, Version

log = logging.getLogger("serve")


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class Replica:
    """One process that decodes, computes and answers."""

    def __init__(self, args: Args) -> None:
        self.args = args
        self.name = serve.get_replica_context().replica_id.unique_id
        own = Traffic(stable=Version(version=args.version, checkpoint=args.checkpoint))
        self.traffic = self._wanted() or own
        self.models = Models.open(args, self.traffic, self.name)
        # Modules and models stay: the collector would look through them again and again. What a request leaves is freed
        # without it; with Python's threshold of 700 objects it runs every few requests, and finds nothing
        gc.freeze()
        gc.set_threshold(20_000)
        self.running = max(1, args.min_replicas)  # replicas; looked up where they share a client's rate
        threading.Thread(target=self._follow, name="traffic", daemon=True).start()

    def _wanted(self) -> Traffic | None:
        deployed = rollout.read_deployed()
        return deployed.traffic if deployed is not None and deployed.args == self.args else None

    def _follow(self) -> None:
        """Take over what `switch` writes, and notice how many replicas there are."""
        while True:
            time.sleep(rollout.LOOK)
            try:
                self.models.close_unused()
                if self.args.rate_limit:
                    self.running = rollout.replicas()
                wanted = self._wanted()
                if wanted is not None and wanted != self.traffic:
                    self.models.apply(wanted)
                    self.traffic = wanted
            except Exception:  # of the store while its process is restarted: the next look finds it again
                log.exception("the traffic could not be read; it stays")

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP interface; Ray Serve asks for it when the model is loaded."""
        # Ray's proxy echoes the id
        return application.build(self.models, self.args, self.gather, echo_id=False, replicas=lambda: self.running)

    def families(self) -> list[Metric]:
        """The metrics of this replica."""
        return self.models.families()

    def state(self) -> State:
        """Who answers here."""
        trial = self.models.trial
        return State(
            replica=self.name,
            pid=os.getpid(),
            args=self.args,
            traffic=self.traffic,
            version=self.models.stable.version,
            canary=None if trial is None else trial.canary.version,
            refused=self.models.refused,
            comparison=None if trial is None else trial.comparison(),
        )

    async def gather(self) -> list[list[Metric]]:
        """The metrics of all replicas: a scrape reaches one of them, whichever is free."""
        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        try:
            return list(await handle.broadcast("families").results_async(timeout_s=2))
        except (TimeoutError, RayError):
            return [self.models.families()]


def build(args: Args) -> serve.Application:
    """The application for a checkpoint, limits and replicas; see Args."""
    scaling = AutoscalingConfig(
        min_replicas=args.min_replicas,
        max_replicas=args.max_replicas,
        initial_replicas=max(1, args.min_replicas),
        target_ongoing_requests=args.target_requests,
        upscale_delay_s=args.upscale_delay,
        downscale_delay_s=args.downscale_delay,
    )
    options: dict[str, Any] = {"num_cpus": args.cpus, "num_gpus": args.gpus}
    if not args.gpus:  # a replica computes in a thread
        options["runtime_env"] = {"env_vars": glibc_allocator.KEPT}
    # The replica itself refuses with problem details what is more than max_waiting; Ray's bound is only behind it.
    return Replica.options(
        autoscaling_config=scaling,
        ray_actor_options=options,
        max_ongoing_requests=2 * args.max_waiting,
        # RequestLog has a line of each request already; the level spares the record that Ray makes of it all the same
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    ).bind(args)


def deploy(args: Args, host: str, port: int, traffic: Traffic | None = None) -> str:
    """Serve on the connected cluster, and return the URL once it answers.

    Where the application runs with the same settings, only the versions are switched. ValueError: the port is taken, or
    the model is refused and the old one goes on.
    """
    wanted = traffic or Traffic(stable=Version(version=args.version, checkpoint=args.checkpoint))
    serve.start(http_options={"host": host, "port": port})
    client = _get_global_client()
    assert client is not None  # serve.start made it
    there = client.http_config
    if (there.host, there.port) != (host, port):  # Serve keeps the address that it was started with
        raise ValueError(f"host and port must be {there.host} {there.port}, where Serve runs, got {host} {port}")
    if environment.refusal() is None and not behind_haproxy():
        needs = "HAProxy is faster, and needs a Ray that was started with RAY_SERVE_ENABLE_HA_PROXY=1"
        print(f"Ray Serve's own proxy takes the requests; {needs}", file=sys.stderr)
    local = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{local}:{port}"
    now = rollout.running()
    model = {"checkpoint", "version"}
    if now is not None and now.args.model_dump(exclude=model) == args.model_dump(exclude=model):
        refused = rollout.switch(wanted)
        if refused is not None:
            raise ValueError(f"model must be one that can be served, got {refused}")
        return url
    rollout.note(Deployed(args=args, traffic=wanted))
    serve.run(build(args), name=APPLICATION)
    wait_until_ready(url, wanted.stable.version)
    return url


def behind_haproxy() -> bool:
    """Whether the cluster's Serve has HAProxy take the requests: it keeps Serve's own proxy as a second choice then."""
    actors: list[Any] = list_named_actors(all_namespaces=True)
    return any("fallback" in actor["name"] for actor in actors)


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


def follower(
    asked: Deploy, traffic: Callable[[str], dict[str, Any]], note: Callable[[str, str, str], None]
) -> Follower | None:
    """What keeps the application at an alias of the registry; None where a version or a checkpoint was asked for."""
    if asked.checkpoint is not None or "/" in asked.model:
        return None
    return Follower(lambda: Traffic.model_validate(traffic(asked.model)), partial(note, asked.model))


def follow_once(follower: Follower | None, outcome: dict[str, Any]) -> dict[str, Any]:
    """Bring the running application, if there is one, to what the registry says."""
    if follower is not None:
        follower.look()
    return outcome


def present(asked: Deploy, args: Args, traffic: Traffic, follower: Follower | None, private: bool) -> dict[str, Any]:
    """Deploy, say on standard error how to ask, and stay where Ray is the caller's own or --follow asks for it."""
    url = deploy(args, asked.host, asked.port, traffic)
    print(f"{args.name}, {traffic.shown}: {url}", file=sys.stderr)
    print(f"  curl --data-binary @IMAGE {url}/v1/predict", file=sys.stderr, flush=True)
    if private or asked.follow:
        stay(follower, asked.every, end=private)
    return {"url": url, "model": args.name, "version": args.version, "checkpoint": args.checkpoint}


def stay(follower: Follower | None, every: float, end: bool = True) -> None:
    """Return at Ctrl-C or SIGTERM. end: then end Serve; open requests are answered, replicas leave in order."""
    stopped = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopped.set())
    looked = time.monotonic()
    while not stopped.wait(min(1.0, every)):  # a signal is only seen between two waits
        if follower is not None and time.monotonic() - looked >= every:
            follower.look()
            looked = time.monotonic()
    if end:
        serve.shutdown()
        ray.shutdown()
