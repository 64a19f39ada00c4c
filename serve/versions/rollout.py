"""Change who answers while the application runs, by hand or as a registry says.

`switch` writes the wanted versions into Ray's key-value store, and each replica looks there once a second. Serve's own
user_config would take a replica out of service while it is reconfigured: while a checkpoint is loaded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from ray import serve
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.serve.context import _get_global_client

from resnet.frozen import Frozen
from serve.settings import Args
from serve.versions.traffic import Comparison, Traffic, Verdict, judge, together

APPLICATION = "resnet"
DEPLOYMENT = "classifier"
KEY = b"resnet/serve/deployed"
LOOK = 1.0  # seconds between two looks of a replica


class Deployed(Frozen):
    """What the application was built from, and who answers now. A replica with other arguments ignores it."""

    args: Args
    traffic: Traffic


class State(Frozen):
    """Of one replica; pid: on its node. traffic: the last that it took over; refused: why it does not serve it all."""

    replica: str
    pid: int
    args: Args
    traffic: Traffic
    version: str
    canary: str | None
    refused: str | None
    comparison: Comparison | None


def read_deployed() -> Deployed | None:
    """What runs on this cluster, as `deploy` and `switch` noted it; None where they did not."""
    value = internal_kv._internal_kv_get(KEY)
    return None if value is None else Deployed.model_validate_json(value)


def running() -> Deployed | None:
    """What runs: the arguments of the replicas, and who answers. None where nothing does. Starts nothing."""
    if _get_global_client(raise_if_no_controller_running=False) is None:
        return None
    there = serve.status().applications.get(APPLICATION)
    if there is None or there.status != "RUNNING":
        return None
    noted = read_deployed()
    try:
        found = states()
    except (RayError, TimeoutError):  # a replica has just died
        found = []
    if not found or (noted is not None and noted.args == found[0].args):
        return noted
    return Deployed(args=found[0].args, traffic=found[0].traffic)  # a config file deployed it


def replicas() -> int:
    """How many replicas take requests, as Serve's controller counts them; at least 1."""
    there = serve.status().applications.get(APPLICATION)
    found = there.deployments.get(DEPLOYMENT) if there else None
    counts = found.replica_states.items() if found else ()
    return max(1, sum(count for state, count in counts if state == "RUNNING"))


def note(deployed: Deployed) -> None:
    """Write down what the replicas shall serve."""
    internal_kv._internal_kv_put(KEY, deployed.model_dump_json().encode(), overwrite=True)


def states() -> list[State]:
    """Of all replicas that run."""
    handle = serve.get_deployment_handle(DEPLOYMENT, APPLICATION)
    return list(handle.broadcast("state").results(timeout_s=10))


def switch(wanted: Traffic, seconds: float = 300.0) -> str | None:
    """Change who answers, and return when all replicas have: None, or why a replica refuses it; then nothing changes.

    RuntimeError where nothing runs, TimeoutError.
    """
    now = running()
    if now is None:
        raise RuntimeError(f"application {APPLICATION} must run before its versions can be changed")
    if now.traffic == wanted:
        return None
    note(Deployed(args=now.args, traffic=wanted))
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(LOOK / 2)
        try:
            found = states()
        except (RayError, TimeoutError):  # a replica has just died; another takes its place
            continue
        canary = None if wanted.canary is None else wanted.canary.version
        for state in found:
            if state.traffic == wanted and (state.version, state.canary) != (wanted.stable.version, canary):
                note(now)
                return state.refused or f"version {wanted.stable.version} does not answer"
        if all(state.traffic == wanted for state in found):
            return None
    note(now)
    raise TimeoutError(f"the replicas did not take over version {wanted.stable.version} within {seconds:g} seconds")


def verdict() -> Verdict | None:
    """On the canary, over all replicas; None where there is none."""
    found = [state.comparison for state in states() if state.comparison is not None]
    return judge(together(found)) if found else None


class Follower:
    """Keeps the application at what a registry says. resolve: who shall answer; note: takes the version of a
    canary and the verdict on it."""

    def __init__(self, resolve: Callable[[], Traffic], note: Callable[[str, str], None]) -> None:
        self.resolve, self.note = resolve, note
        self._refused: Traffic | None = None
        self._told: str | None = None

    def look(self) -> None:
        """Look once. What cannot be done is said once on standard error, and tried again at the next look."""
        try:
            wanted = self.resolve()
            if wanted != self._refused:
                self._change(wanted)
            if wanted.canary is not None and (found := verdict()) is not None:
                self.note(wanted.canary.version, found.sentence)
            self._told = None
        except Exception as trouble:  # whatever a registry on a network, or a cluster in trouble, raises
            if str(trouble) != self._told:
                print(f"the registry is not followed at the moment: {trouble}", file=sys.stderr, flush=True)
            self._told = str(trouble)

    def _change(self, wanted: Traffic) -> None:
        now = running()
        if now is None or now.traffic == wanted:
            return
        refused = switch(wanted)
        self._refused = wanted if refused else None  # not again, until the registry says something else
        what = f"not served, the old version stays: {refused}" if refused else f"now answers {wanted.shown}"
        print(what, file=sys.stderr, flush=True)
