"""The state of each replica, as it says itself: which versions it serves, what it refuses, how they compare."""

from __future__ import annotations

from collections.abc import Sequence

from resnet.frozen import Frozen
from serve.settings import Args
from serve.versions.traffic import CanaryComparison, Traffic, Verdict, judge, together


class ReplicaState(Frozen):
    """Of one replica; pid: on its node. traffic: the last that it took over; refused: why it does not serve it all."""

    replica: str
    pid: int
    args: Args
    traffic: Traffic
    version: str
    beside: tuple[str, ...]
    refused: str | None
    comparisons: tuple[CanaryComparison, ...]


def refused_by_replicas(states: Sequence[ReplicaState], wanted: Traffic) -> str | None:
    """Why a replica that began with these versions does not serve them all; None where all do."""
    for state in states:
        if state.traffic == wanted and state.refused is not None:
            return state.refused
    return None


def verdicts(states: Sequence[ReplicaState]) -> dict[str, Verdict]:
    """On each version beside the stable one, over all replicas, by version."""
    found: dict[str, list[CanaryComparison]] = {}
    for state in states:
        for comparison in state.comparisons:
            found.setdefault(comparison.canary.version, []).append(comparison)
    return {version: judge(together(parts)) for version, parts in found.items()}
