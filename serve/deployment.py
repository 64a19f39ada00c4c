"""Deploys the application on a Ray that is there, and stays with it."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import ray
from ray import serve

from serve.app import build
from serve.deploy_settings import Deploy
from serve.grpc_gateway.gateway import listening_for_grpc
from serve.haproxy import environment
from serve.settings import Args
from serve.versions import rollout
from serve.versions.rollout import APPLICATION, Deployed, Follower
from serve.versions.traffic import Traffic, Version


def deploy(args: Args, host: str, port: int, traffic: Traffic | None = None) -> str:
    """Serve on the connected cluster, and return the URL once it answers.

    Where the application runs with the same settings, only the versions are switched. ValueError: the port is taken, or
    the model is refused and the old one goes on.
    """
    wanted = traffic or Traffic(stable=Version(version=args.version, checkpoint=args.checkpoint))
    rollout.require_reachable(host)
    serve.start(http_options={"host": host, "port": port})
    there = rollout.serve_address()
    if there is not None and there != (host, port):  # Serve keeps the address that it was started with
        raise ValueError(f"host and port must be {there[0]} {there[1]}, where Serve runs, got {host} {port}")
    if environment.refusal() is None and not rollout.behind_haproxy():
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
    """The watcher that keeps the application at an alias; None where a version or a checkpoint was asked for."""
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
    asked.require_room([node["Resources"] for node in ray.nodes() if node["Alive"]])
    url = deploy(args, asked.host, asked.port, traffic)
    print(f"{args.name}, {traffic.shown}: {url}", file=sys.stderr)
    print(f"  curl --data-binary @IMAGE {url}/v1/predict", file=sys.stderr, flush=True)
    if private or asked.follow:
        with _grpc(asked, args, url):
            stay(follower, asked.every, end=private)
    return {"url": url, "model": args.name, "version": args.version, "checkpoint": args.checkpoint}


@contextlib.contextmanager
def _grpc(asked: Deploy, args: Args, url: str) -> Iterator[None]:
    """gRPC beside HTTP while the block runs, where it is asked for."""
    if asked.grpc_port is None:
        yield
        return
    limits: dict[str, Any] = args.model_dump(include={"max_bytes", "timeout", "api_key_file"})
    with listening_for_grpc(url, asked.host, asked.grpc_port, **limits) as port:
        print(f"  gRPC on {asked.host}:{port}", file=sys.stderr, flush=True)
        yield


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
