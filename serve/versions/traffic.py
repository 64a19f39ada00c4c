"""Which versions answer, and how they compare: the champion, a canary beside it, and the verdict on the two."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from resnet.frozen import Frozen

ENOUGH = 100  # requests of the canary before there is a verdict
KEPT = 1000  # latencies of each side that a replica keeps


class Version(Frozen):
    """A version of a model and where its checkpoint lies."""

    version: str
    checkpoint: str


class Canary(Version):
    """A version that answers a share of the images."""

    percent: Annotated[float, Field(gt=0, lt=100)]


class Traffic(Frozen):
    """The version that answers."""

    stable: Version
    canary: Canary | None = None

    @property
    def versions(self) -> list[Version]:
        """All that answer."""
        beside = self.canary
        return [self.stable] + ([Version(version=beside.version, checkpoint=beside.checkpoint)] if beside else [])

    @property
    def shown(self) -> str:
        """For a person."""
        beside = f"; {self.canary.percent:g} % of the images: version {self.canary.version}" if self.canary else ""
        return f"version {self.stable.version}{beside}"


def to_canary(image: bytes, percent: float) -> bool:
    """True if the canary answers. By the image's bytes: the same image always meets the same version, on any replica,
    and a client behind a proxy or without a key is no exception. image: the first of a request."""
    digest = hashlib.blake2b(image, digest_size=8).digest()
    return int.from_bytes(digest, "big") < percent / 100 * 2**64


class Side(Frozen):
    """Counts of one version. seconds: of its last requests, admission to answer."""

    version: str
    requests: int = 0
    errors: int = 0
    seconds: tuple[float, ...] = ()

    def quantile(self, q: float) -> float:
        """A latency in milliseconds; 0 without requests."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else 0.0


class CanaryComparison(Frozen):
    """Both sides since the canary began. compared: images that both answered; agreed: with the same best class;

    difference: sum over those of the largest difference of a probability of the same class.
    """

    stable: Side
    canary: Side
    compared: int = 0
    agreed: int = 0
    difference: float = 0.0


def together(parts: Sequence[CanaryComparison]) -> CanaryComparison:
    """The comparison over all replicas. parts: at least one."""

    def side(sides: Sequence[Side]) -> Side:
        seconds = tuple(s for one in sides for s in one.seconds)
        requests, errors = sum(s.requests for s in sides), sum(s.errors for s in sides)
        return Side(version=sides[0].version, requests=requests, errors=errors, seconds=seconds)

    return CanaryComparison(
        stable=side([part.stable for part in parts]),
        canary=side([part.canary for part in parts]),
        compared=sum(part.compared for part in parts),
        agreed=sum(part.agreed for part in parts),
        difference=sum(part.difference for part in parts),
    )


class Verdict(Frozen):
    """True if the canary may take over (None: not known yet), a sentence why, and the figures behind it."""

    good: bool | None
    sentence: str
    stable: dict[str, float]
    canary: dict[str, float]
    compared: int
    agreement: float | None


def judge(found: CanaryComparison) -> Verdict:
    """Bad: the canary fails more often by a percentage point, or its median takes half as long again.

    Agreement is told and not judged: a better model disagrees where the old one was wrong.
    """
    old, new = found.stable, found.canary
    rates = [100 * side.errors / max(1, side.requests) for side in (old, new)]
    slower = new.quantile(0.5) / old.quantile(0.5) if old.seconds and new.seconds else 1.0
    names = f"version {new.version} against {old.version}"
    if new.requests < ENOUGH:
        good, sentence = None, f"{names}: undecided, {new.requests} of {ENOUGH} requests"
    elif rates[1] > rates[0] + 1:
        good, sentence = False, f"{names}: bad, {rates[1]:.1f} % of its requests fail against {rates[0]:.1f} %"
    elif slower > 1.5:
        good, sentence = False, f"{names}: bad, its median latency is {slower:.1f} times as long"
    else:
        good, sentence = True, f"{names}: good, as few failures and as fast"
    agreement = 100 * found.agreed / found.compared if found.compared else None
    if agreement is not None:
        sentence += f"; the same best class for {agreement:.1f} % of {found.compared} images"
    sides = [
        {"requests": s.requests, "errors": s.errors, "p50_ms": s.quantile(0.5), "p99_ms": s.quantile(0.99)}
        for s in (old, new)
    ]
    return Verdict(
        good=good,
        sentence=sentence,
        stable=sides[0],
        canary=sides[1],
        compared=found.compared,
        agreement=agreement,
    )
