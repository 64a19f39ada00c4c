"""The models of one replica: the version that answers, a canary beside it, other models by name.

A version that is wanted is loaded and checked beside the one that answers, and then takes its place: requests that
began with the old one end with it. A version that cannot be loaded, does not fit, ends the process that tries it, or
whose answers on the examples in its own checkpoint differ from those stored there, is refused, and the old one stays.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from prometheus_client.metrics_core import Metric

from serve.inference.inference_service import Outcome
from serve.problems import Problem
from serve.settings import Args
from serve.versions.attempts import Attempts, NotYet, OwnNotes, VersionRefused
from serve.versions.canary import CanaryTrial
from serve.versions.loaded_model import Loaded, load_version
from serve.versions.traffic import Canary, Traffic, Version

UNREGISTERED = "unregistered"  # the version of a checkpoint that no registry knows
log = logging.getLogger("serve")


class Models:
    """The models of a replica. `stable` answers where no name is asked for; others: by name, never changed.

    attempts: how a version is loaded; refused_before: why what was wanted before is not served, as the cluster has it.
    """

    def __init__(
        self, args: Args, stable: Loaded, others: Sequence[Loaded] = (), attempts: Attempts | None = None
    ) -> None:
        self.args, self.stable = args, stable
        self.attempts = attempts or Attempts(args, "", OwnNotes(), lambda _: False, None)
        self.others = {other.name: other for other in others}
        self.trial: CanaryTrial | None = None
        self.refused_before: str | None = None
        self._refused: str | None = None
        self._left: deque[tuple[float, Loaded]] = deque()

    @classmethod
    def open(cls, args: Args, wanted: Version | None, attempts: Attempts) -> Models:
        """Load what is wanted, else the version that answered last, else what the application was deployed with.

        VersionRefused: none of them can be served. `apply` says why the wanted one is not.
        """
        own = Version(version=args.version, checkpoint=args.checkpoint)
        *choices, last = dict.fromkeys(version for version in (wanted or own, attempts.last_good(), own) if version)
        stable = None
        for version in choices:
            with contextlib.suppress(VersionRefused, NotYet):
                stable = stable or attempts.load(version, starting=True)
        stable = stable or attempts.load_without_choice(last)
        others = [
            load_version(Version(version=UNREGISTERED, checkpoint=place), args, name, attempts.replica)
            for name, place in args.models.items()
        ]
        models = cls(args, stable, others, attempts)
        attempts.serves(models.answers)
        return models

    @property
    def refused(self) -> str | None:
        """Why what was wanted last is not served, or None."""
        return self._refused or self.refused_before

    @property
    def answers(self) -> Version:
        """The version that answers."""
        return Version(version=self.stable.version, checkpoint=self.stable.checkpoint)

    def apply(self, wanted: Traffic, starting: bool = False) -> None:
        """Serve what is wanted, as far as it can be; `refused` says what cannot. Off the event loop: it takes seconds.

        starting: nothing answers here yet. NotYet: ask again in a moment; nothing has changed, or the stable version.
        """
        trial = self.trial
        there = {} if trial is None else {each.plain: loaded for each, loaded in trial.beside.items()}
        refused = [self._apply_stable(wanted.stable, there, starting), *self._apply_beside(wanted, there, starting)]
        refused = [why for why in refused if why]
        self._refused = "; ".join(refused) or None
        for why in refused:
            log.error("not served, the old version stays: %s", why)

    def _apply_stable(self, wanted: Version, there: Mapping[Version, Loaded], starting: bool) -> str | None:
        """None, or why it is refused. there: what is loaded beside the stable version."""
        if wanted == self.answers:
            return None
        old = self.stable
        try:
            self.stable = there.get(wanted) or self._load(wanted, starting)
        except VersionRefused as why:
            return f"version {wanted.version}: {why}"
        self.trial = None
        self._leave(old)
        self.attempts.serves(self.answers)
        log.warning("version %s answers now, before it %s", self.stable.version, old.version)
        return None

    def _apply_beside(self, wanted: Traffic, there: Mapping[Version, Loaded], starting: bool) -> list[str]:
        """Why versions beside the stable one are refused."""
        trial, refused = self.trial, []
        if wanted.beside == (() if trial is None else trial.wanted):
            self._leave_unused(there)
            return refused
        beside: dict[Canary, Loaded] = {}
        for each in wanted.beside:
            try:
                beside[each] = there.get(each.plain) or self._load(each.plain, starting)
            except VersionRefused as why:
                refused.append(f"version {each.version}: {why}")
            except NotYet:
                self._leave_unused(there)
                raise
        self.trial = CanaryTrial(self.stable, beside) if beside else None
        self._leave_unused(there)
        return refused

    def _load(self, wanted: Version, starting: bool) -> Loaded:
        """A version. VersionRefused: it cannot be loaded, or is of another task, whose clients ask on other routes."""
        loaded = self.attempts.load(wanted, starting)
        task, other = self.stable.classifier.task, loaded.classifier.task
        if other != task:
            loaded.inference.close()
            raise VersionRefused(f"{self.args.name} answers {task}, and it is of {other}: serve it by another name")
        return loaded

    def _leave_unused(self, there: Mapping[Version, Loaded]) -> None:
        """End what was loaded beside the stable version, and is no more."""
        used = self.answering()
        for loaded in there.values():
            if loaded not in used:
                self._leave(loaded)

    def _leave(self, loaded: Loaded) -> None:
        loaded.inference.metrics.up.set(0)
        self._left.append((time.monotonic(), loaded))

    def close_unused(self) -> None:
        """End versions that no request can still be at: all are answered within the time-out, body and answer each."""
        while self._left and time.monotonic() - self._left[0][0] > 2 * self.args.timeout + 5:
            self._left.popleft()[1].inference.close()

    def named(self, name: str, version: str | None = None) -> Loaded | None:
        """A model by name and version; None: the served one, whichever version. Problem 404 says what there is."""
        if name in self.others and version in (None, self.others[name].version):
            return self.others[name]
        if name in self.others:
            known = self.others[name].version
            raise Problem(404, f"version of {name} must be {known}, got {(version or '')[:80]}")
        if name != self.args.name:
            raise Problem(404, f"model must be {' or '.join([self.args.name, *self.others])}, got {name[:80]}")
        trial = self.trial  # it may end at any moment, in another thread
        here = [self.stable, *(trial.beside.values() if trial else ())]
        if version is None:
            return None if trial else self.stable
        for loaded in here:
            if loaded.version == version:
                return loaded
        known = " or ".join(loaded.version for loaded in here)
        raise Problem(404, f"version of {self.args.name} must be {known}, got {version[:80]}")

    def answering(self) -> list[Loaded]:
        """The versions that a request can name."""
        trial = self.trial
        return [self.stable, *(trial.beside.values() if trial else ()), *self.others.values()]

    async def answer(
        self,
        images: Sequence[bytes | np.ndarray],
        asked: Loaded | None = None,
    ) -> tuple[list[Outcome], Loaded]:
        """Answers in order of the images, and who gave them. asked: a certain one; None: as the traffic is split."""
        trial = self.trial
        if asked is None and trial is not None:
            first = images[0]
            return await trial.answer(images, first if isinstance(first, bytes) else first.tobytes())
        loaded = asked or self.stable
        return await loaded.inference.answer(images), loaded

    def families(self) -> list[Metric]:
        """The metrics of all that is and was served."""
        return [family for loaded in self._all() for family in loaded.inference.metrics.families()]

    def close(self) -> None:
        """End all threads."""
        for loaded in self._all():
            loaded.inference.close()

    def _all(self) -> list[Loaded]:
        trial = self.trial
        left = [loaded for _, loaded in list(self._left)]
        return [self.stable, *(trial.beside.values() if trial else ()), *self.others.values(), *left]
