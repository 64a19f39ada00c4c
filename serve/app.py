"""The Ray Serve application: replicas of one checkpoint behind HTTP.

`build` is what a config file names (deploy/serve.yaml). Ray is imported here, in deployment.py and in
versions/rollout.py only.
"""

# No `from __future__ import annotations`: Ray reads build's annotation at run time, as a class.
import contextlib
import gc
import logging
import os
import threading
import time
from typing import Any

import ray
from fastapi import FastAPI
from prometheus_client.metrics_core import Metric
from ray import serve
from ray.exceptions import RayError
from ray.serve.config import AutoscalingConfig

from resnet.host import glibc_allocator
from serve import job_log
from serve.api import application
from serve.api.camera.cameras import Cameras
from serve.settings import Args
from serve.versions import rollout
from serve.versions.attempts import NotYet
from serve.versions.replica_states import ReplicaState
from serve.versions.rollout import DEPLOYMENT, Deployed, TrafficRefusal
from serve.versions.served_models import Models
from serve.versions.traffic import Traffic, Version

log = logging.getLogger("serve")


@serve.deployment(name=DEPLOYMENT)
@serve.ingress()
class Replica:
    """One process that decodes, computes and answers."""

    def __init__(self, args: Args) -> None:
        job_log.send_to_job()
        rollout.close_own_server()
        self.args = args
        self.name = serve.get_replica_context().replica_id.unique_id
        own = Traffic(stable=Version(version=args.version, checkpoint=args.checkpoint))
        noted = self._noted()
        wanted = own if noted is None else noted.traffic
        self.models = Models.open(args, wanted.stable, rollout.attempts_of(args, self.name))
        self.traffic = Traffic(stable=self.models.answers)
        self._take_over(wanted, None if noted is None else noted.refused, starting=True)
        # Modules and models stay: the collector would look through them again and again. What a request leaves is freed
        # without it; with Python's threshold of 700 objects it runs every few requests, and finds nothing
        gc.freeze()
        gc.set_threshold(20_000)
        self.cameras: Cameras | None = None
        self.running = max(1, args.min_replicas)  # replicas; looked up where they share a client's rate
        threading.Thread(target=self._follow, name="traffic", daemon=True).start()

    def _noted(self) -> Deployed | None:
        deployed = rollout.read_deployed()
        return deployed if deployed is not None and deployed.args == self.args else None

    def _follow(self) -> None:
        """Take over what `switch` writes, and notice how many replicas there are."""
        while True:
            time.sleep(rollout.LOOK)
            try:
                self.models.close_unused()
                if self.cameras is not None and rollout.ClusterNotes().get(rollout.CLOSING):
                    self.cameras.close()
                if self.args.rate_limit:
                    self.running = rollout.replicas()
                if (noted := self._noted()) is not None:
                    self._take_over(noted.traffic, noted.refused)
            except Exception:  # of the store while its process is restarted: the next look finds it again
                log.exception("the traffic could not be read; it stays")

    def _take_over(self, wanted: Traffic, refused: TrafficRefusal | None, starting: bool = False) -> None:
        """Serve what is wanted, and tell what was refused before it."""
        self.models.refused_before = None if refused is None else refused.reason
        if wanted == self.traffic:
            return
        with contextlib.suppress(NotYet):  # another replica tries it first
            self.models.apply(wanted, starting)
            self.traffic = wanted

    def __serve_build_asgi_app__(self) -> FastAPI:
        """The HTTP interface; Ray Serve asks for it when the model is loaded."""
        # Ray's proxy echoes the id
        made = application.create_application(
            self.models, self.args, self.gather, echo_id=False, replicas=lambda: self.running
        )
        self.cameras = made.state.cameras
        return made

    def families(self) -> list[Metric]:
        """The metrics of this replica."""
        return self.models.families()

    def state(self) -> ReplicaState:
        """The versions that answer here."""
        trial = self.models.trial
        return ReplicaState(
            replica=self.name,
            pid=os.getpid(),
            args=self.args,
            traffic=self.traffic,
            version=self.models.stable.version,
            beside=() if trial is None else tuple(each.version for each in trial.wanted),
            refused=self.models.refused,
            comparisons=() if trial is None else trial.comparisons(),
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
    """The application for a checkpoint, limits and replicas; see Args. ValueError where nodes could not reach it."""
    if ray.is_initialized() and (there := rollout.serve_address()):
        rollout.require_reachable(there[0])
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
        max_ongoing_requests=2 * args.max_waiting + args.max_streams,
        # RequestLog has a line of each request already; the level spares the record that Ray makes of it all the same
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
    ).bind(args)
