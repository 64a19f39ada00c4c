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
from serve.haproxy.front_control import FrontControl
from serve.settings import Args
from serve.versions import rollout
from serve.versions.replica_states import refused_by_replicas, verdicts
from serve.versions.rollout import APPLICATION, Deployed
from serve.versions.traffic import Canary, Traffic, Verdict, Version

FLUSHED = 0.4  # seconds in which the last lines of replicas reach the log
LOOKING = 10.0  # seconds that a look at the registry may still take at the end


def deploy(args: Args, host: str, port: int, traffic: Traffic | None = None, follower: Follower | None = None) -> str:
    """Serve on the connected cluster, and return the URL once it answers.

    Where the application runs with the same settings, only the versions are switched. ValueError: the port is taken, or
    the model is refused and the old one goes on. follower: is told what becomes of the versions.
    """
    wanted = traffic or Traffic(stable=Version(version=args.version, checkpoint=args.checkpoint))
    rollout.require_reachable(host)
    _start_serve(host, port)
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
        if follower is not None:
            follower.tell(wanted, refused)
        if refused is not None:
            raise ValueError(f"model must be one that can be served, got {refused}")
        return url
    rollout.note(Deployed(args=args, traffic=wanted))
    serve.run(build(args), name=APPLICATION)
    wait_until_ready(url, wanted.stable.version)
    return url


def _start_serve(host: str, port: int) -> None:
    """Start Ray Serve, or find the one that runs. On a crowded machine its proxies take longer than the minute that it
    waits for them: they come all the same."""
    try:
        serve.start(http_options={"host": host, "port": port})
    except TimeoutError:
        print("Ray Serve's proxies are slow to start on this machine; waiting", file=sys.stderr, flush=True)
        serve.start(http_options={"host": host, "port": port})


def wait_until_ready(url: str, version: str, seconds: float = 300.0) -> None:
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


class Follower:
    """Looks at a registry, and switches. resolve: who shall answer; note: takes the version of a canary and the verdict
    on it; refuse: takes a version and why it is not served, or None where it is; end: ends a canary in the registry,
    which takes over or not, and gives a sentence."""

    def __init__(
        self,
        resolve: Callable[[], Traffic],
        note: Callable[[str, str], None],
        refuse: Callable[[str, str | None], None] = lambda *_: None,
        end: Callable[[str, bool], str] = lambda *_: "",
    ) -> None:
        self.resolve, self.note, self.refuse, self.end = resolve, note, refuse, end
        self._good_since: dict[str, float] = {}
        self._told: str | None = None

    def look(self) -> None:
        """Look once. What cannot be done is said once on standard error, and tried again at the next look."""
        try:
            wanted = self.resolve()
            steady = self._follow(wanted)
            states = rollout.states() if steady or wanted.beside else []
            if steady and (why := refused_by_replicas(states, wanted)) is not None:
                # of replicas that began after an alias had moved, from zero
                rollout.note_refused(wanted, why)
                self.tell(wanted, why)
            found = verdicts(states)
            for canary in wanted.beside:
                if (verdict := found.get(canary.version)) is not None:
                    self.note(canary.version, verdict.sentence)
                    self.decide(canary, verdict, time.monotonic())
            self._told = None
        except Exception as trouble:  # whatever a registry on a network, or a cluster in trouble, raises
            if str(trouble) != self._told:
                print(f"the registry is not followed at the moment: {trouble}", file=sys.stderr, flush=True)
            self._told = str(trouble)

    def _follow(self, wanted: Traffic) -> bool:
        """Switch where it is needed; true where this is served already, as far as is known."""
        now = rollout.running()
        if now is None or (now.refused is not None and now.refused.traffic == wanted):
            return False  # what is refused is not tried again until the registry says something else
        if now.traffic == wanted and now.refused is None:
            return True
        self.tell(wanted, rollout.switch(wanted))
        return False

    def decide(self, canary: Canary, verdict: Verdict, now: float) -> None:
        """End a canary by itself where it was begun so: it takes over once its verdict has been good for its time, and
        goes when it is bad. now: seconds on a clock; without a verdict the time begins anew."""
        since = self._good_since.setdefault(canary.version, now)
        if not verdict.good:
            del self._good_since[canary.version]
        if canary.promote_after is None or verdict.good is None:
            return
        if not verdict.good or now - since >= canary.promote_after:
            self._good_since.pop(canary.version, None)
            print(self.end(canary.version, verdict.good), file=sys.stderr, flush=True)

    def tell(self, wanted: Traffic, refused: str | None) -> None:
        """Say what became of a wish, here and in the registry."""
        what = f"not served, the old version stays: {refused}" if refused else f"now answers {wanted.shown}"
        print(what, file=sys.stderr, flush=True)
        for version in wanted.versions:
            mine = refused is not None and f"version {version.version}: " in refused
            if mine or refused is None:
                self.refuse(version.version, refused)


def follower(
    asked: Deploy,
    traffic: Callable[[str], dict[str, Any]],
    note: Callable[[str, str, str], None],
    refuse: Callable[[str, str, str | None], None],
    end: Callable[[str, str, bool], str],
) -> Follower | None:
    """The watcher that keeps the application at an alias; None where a version or a checkpoint was asked for."""
    if asked.checkpoint is not None or "/" in asked.model:
        return None
    return Follower(
        lambda: Traffic.model_validate(traffic(asked.model)),
        partial(note, asked.model),
        partial(refuse, asked.model),
        partial(end, asked.model),
    )


def follow_once(follower: Follower | None, outcome: dict[str, Any]) -> dict[str, Any]:
    """Bring the running application, if there is one, to what the registry says."""
    if follower is not None:
        follower.look()
    return outcome


def present(asked: Deploy, args: Args, traffic: Traffic, follower: Follower | None, private: bool) -> dict[str, Any]:
    """Deploy, say on standard error how to ask, and stay where Ray is the caller's own or --follow asks for it."""
    asked.require_room([node["Resources"] for node in ray.nodes() if node["Alive"]])
    front = environment.own_front() if private else None
    host = asked.host if front is None else "127.0.0.1"  # of replicas; HAProxy alone listens where it was asked to
    url = deploy(args, host, asked.port, traffic, follower)
    print(f"{args.name}, {traffic.shown}: {url}", file=sys.stderr)
    print(f"  curl --data-binary @IMAGE {url}/v1/predict", file=sys.stderr, flush=True)
    if private or asked.follow:
        with _grpc(asked, args, url):
            stay(follower, asked.every, end=private, front=front, patience=args.timeout)
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


def stay(
    follower: Follower | None, every: float, end: bool = True, front: str | None = None, patience: float = 30.0
) -> None:
    """Return at Ctrl-C, SIGTERM or SIGHUP. end: then end Serve and Ray.

    front: folder of an own HAProxy. What it has accepted is answered first, for so many seconds at most (patience);
    what is new gets 503 with Retry-After. Another signal ends that at once.
    """
    asked, over = StopRequests(), threading.Event()
    attending = threading.Thread(target=_attend, args=(follower, every, over), name="attend", daemon=True)
    attending.start()
    while not asked.count:  # a signal is only seen between two waits
        time.sleep(0.2)
    over.set()
    if not end:
        return
    rollout.ClusterNotes().put(rollout.CLOSING, "1")  # cameras stay until they are told to go
    if front is None:
        time.sleep(1.5 * rollout.LOOK)
        serve.shutdown()
    else:
        _drain(FrontControl(front), patience, asked)
    attending.join(LOOKING)  # whatever asks Ray after its end starts or finds another one
    ray.shutdown()


class StopRequests:
    """Signals that ask this process to end, counted. Several within half a second are one: a terminal that is closed
    sends more, and `timeout` asks the process and then its group."""

    ONE = 0.5

    def __init__(self) -> None:
        self.count, self._last = 0, 0.0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
                signal.signal(number, self._hear)

    def _hear(self, *_: object) -> None:
        now = time.monotonic()
        if not self.count or now - self._last > self.ONE:
            self.count += 1
        self._last = now


def _drain(front: FrontControl, patience: float, asked: StopRequests) -> None:
    """Let requests end, and then HAProxy. Replicas hold none then, and end with Ray."""
    print("ending: what was accepted is answered, what is new is refused", file=sys.stderr, flush=True)
    try:
        left = front.drain(patience, lambda: asked.count > 1)
        if left:
            print(f"{left} requests are cut off: not answered within {patience:g} seconds", file=sys.stderr, flush=True)
        time.sleep(FLUSHED)
    except OSError as error:
        print(f"requests in progress are cut off: HAProxy's keeper is gone ({error})", file=sys.stderr, flush=True)
    front.end()


def _attend(follower: Follower | None, every: float, over: threading.Event) -> None:
    """Follow the registry, and see to it that the application runs. In a thread: a registry may take its time."""
    keeper = Keeper()
    while not over.wait(every):
        keeper.look()
        if follower is not None and not over.is_set():
            follower.look()


class Keeper:
    """Deploys the application again where Ray Serve has given it up: after its replicas failed to start some times.

    What was wrong may have been mended: files that came back, memory that is free again.
    """

    FIRST, MOST = 10.0, 300.0  # seconds from one try to the next; twice as long each time

    def __init__(self) -> None:
        self._wait, self._due = self.FIRST, 0.0

    def look(self) -> None:
        """Look once. What fails is said on standard error."""
        try:
            given_up = rollout.given_up()
            if given_up is None:
                self._wait = self.FIRST
            elif time.monotonic() >= self._due:
                self._again(given_up)
        except Exception as trouble:  # whatever a cluster in trouble raises
            print(f"the application cannot be deployed again at the moment: {trouble}", file=sys.stderr, flush=True)

    def _again(self, why: str) -> None:
        noted = rollout.read_deployed()
        if noted is None:  # a config file deployed it
            return
        self._due, self._wait = time.monotonic() + self._wait, min(self.MOST, 2 * self._wait)
        print(f"the application is deployed again: {why}", file=sys.stderr, flush=True)
        serve.delete(APPLICATION)
        serve.run(build(noted.args), name=APPLICATION)
