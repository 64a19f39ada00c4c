"""States of several replicas together: why one refuses what all shall serve, and a verdict a version."""

from pathlib import Path

from serve.settings import Args
from serve.versions.replica_states import ReplicaState, refused_by_replicas, verdicts
from serve.versions.traffic import Canary, CanaryComparison, Side, Traffic, Version

WANTED = Traffic(
    stable=Version(version="1", checkpoint="/1"),
    beside=(
        Canary(version="2", checkpoint="/2", percent=10),
        Canary(version="3", checkpoint="/3", percent=50, shadow=True),
    ),
)


def state(replica: str, traffic: Traffic, refused: str | None = None, requests: int = 0) -> ReplicaState:
    sides = [Side(version=version, requests=requests, seconds=(0.01,) * requests) for version in "123"]
    comparisons = tuple(CanaryComparison(stable=sides[0], canary=side) for side in sides[1:])
    return ReplicaState(
        replica=replica, pid=1, args=Args(checkpoint=str(Path("/1"))), traffic=traffic, version="1", beside=("2", "3"),
        refused=refused, comparisons=comparisons if traffic.beside else (),
    )  # fmt: skip


def test_each_version_has_the_counts_of_all_replicas() -> None:
    found = verdicts([state("a", WANTED, requests=60), state("b", WANTED, requests=40)])
    assert {version: verdict.canary["requests"] for version, verdict in found.items()} == {"2": 100, "3": 100}
    assert [verdict.good for verdict in found.values()] == [True, True]
    assert verdicts([state("a", Traffic(stable=WANTED.stable))]) == {}
    assert verdicts([]) == {}


def test_only_a_refusal_of_what_is_wanted_now_counts() -> None:
    older = Traffic(stable=WANTED.stable)
    assert refused_by_replicas([state("a", WANTED), state("b", older, "version 9: no file")], WANTED) is None
    told = refused_by_replicas([state("a", WANTED), state("b", WANTED, "version 2: no file")], WANTED)
    assert told == "version 2: no file"
    assert refused_by_replicas([], WANTED) is None
