"""The versions that answer, and their comparison: the champion, others beside it, and the verdict on each of those."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from resnet.frozen import Frozen

ENOUGH = 100  # requests of the canary before there is a verdict
KEPT = 1000  # latencies of each side that a replica keeps


class Version(Frozen):
    """A version of a model and where its checkpoint lies."""

    version: str
    checkpoint: str


class Canary(Version):
    """A version beside the stable one. It answers a share of the images; shadow: it computes the share's answers too,
    which are compared and never returned. promote_after: seconds with a good verdict after which it takes over."""

    percent: Annotated[float, Field(gt=0, le=100)]
    shadow: bool = False
    promote_after: Annotated[float | None, Field(ge=0)] = None

    @property
    def plain(self) -> Version:
        """The version alone."""
        return Version(version=self.version, checkpoint=self.checkpoint)

    @property
    def shown(self) -> str:
        """In words."""
        share = f"{self.percent:g} % of the images: version {self.version}"
        return f"copies of {share}" if self.shadow else share


class Traffic(Frozen):
    """The version that answers, and those beside it."""

    stable: Version
    beside: tuple[Canary, ...] = ()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [self.stable.version, *(each.version for each in self.beside)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"versions must be named once, got version {name} {names.count(name)} times")
        answered = sum(each.percent for each in self.beside if not each.shadow)
        if answered >= 100:
            raise ValueError(f"the shares of canaries must be less than 100 % together, got {answered:g} %")
        return self

    @property
    def versions(self) -> list[Version]:
        """All that compute."""
        return [self.stable, *(each.plain for each in self.beside)]

    @property
    def shown(self) -> str:
        """In words."""
        return "; ".join([f"version {self.stable.version}", *(each.shown for each in self.beside)])


def percentile(image: bytes, purpose: bytes = b"") -> float:
    """A number in [0, 100) by an image's bytes: the same image always meets the same version, on any replica, and a
    client behind a proxy or without a key is no exception. purpose: another one gives another number."""
    digest = hashlib.blake2b(image, digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "big") / 2**64 * 100


def answering(image: bytes, beside: Sequence[Canary]) -> Canary | None:
    """The canary that answers an image, by their shares in turn; None: the stable version. image: the first of a
    request."""
    place, end = percentile(image), 0.0
    for each in beside:
        end += 0 if each.shadow else each.percent
        if place < end:
            return each
    return None


def shadows(image: bytes, beside: Sequence[Canary]) -> Iterator[Canary]:
    """The shadows that compute an image's answer too."""
    for each in beside:
        if each.shadow and percentile(image, b"shadow") < each.percent:
            yield each


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
    """The comparison of one canary over all replicas. parts: at least one."""

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
