"""The models of one replica: the version that answers, a canary beside it, other models by name.

A version that is wanted is loaded and checked beside the one that answers, and then takes its place: requests that
began with the old one end with it. A version that cannot be loaded, or whose answers on the examples in its own
checkpoint differ from those stored there, is refused, and the old one stays.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from prometheus_client.metrics_core import Metric

from serve.inference.inference_service import Outcome
from serve.problems import Problem
from serve.settings import Args
from serve.versions.canary import CanaryTrial
from serve.versions.loaded_model import Loaded, load_version
from serve.versions.traffic import Traffic, Version

log = logging.getLogger("serve")


class Models:
    """The models of a replica. `stable` answers where no name is asked for; others: by name, never changed.

    refused: why the last version that was wanted is not served, or None.
    """

    def __init__(self, args: Args, stable: Loaded, others: Sequence[Loaded] = (), replica: str = "") -> None:
        self.args, self.stable, self.replica = args, stable, replica
        self.others = {other.name: other for other in others}
        self.trial: CanaryTrial | None = None
        self.refused: str | None = None
        self._left: deque[tuple[float, Loaded]] = deque()

    @classmethod
    def open(cls, args: Args, wanted: Traffic | None, replica: str) -> Models:
        """Load what is wanted; where that is refused, what the application was deployed with."""
        own = Version(version=args.version, checkpoint=args.checkpoint)
        first, refused = own if wanted is None else wanted.stable, None
        try:
            stable = load_version(first, args, args.name, replica)
        except Exception as error:  # whatever readers of URIs raise
            if first == own:
                raise
            stable, refused = load_version(own, args, args.name, replica), f"version {first.version}: {error}"
        others = [
            load_version(Version(version=args.version, checkpoint=place), args, name, replica)
            for name, place in args.models.items()
        ]
        models = cls(args, stable, others, replica)
        models.refused = refused
        if wanted is not None:
            models.apply(wanted)
        return models

    def apply(self, wanted: Traffic) -> None:
        """Serve what is wanted, as far as it can be. Off the event loop: loading takes seconds."""
        self._apply_stable(wanted.stable)
        if wanted.canary is None:
            self._end_trial()
        elif self.trial is None or (self.trial.canary.version, self.trial.percent) != (
            wanted.canary.version,
            wanted.canary.percent,
        ):
            self._end_trial()
            canary = self._load(wanted.canary)
            self.trial = None if canary is None else CanaryTrial(self.stable, canary, wanted.canary.percent)

    def _apply_stable(self, wanted: Version) -> None:
        if (wanted.version, wanted.checkpoint) == (self.stable.version, self.stable.checkpoint):
            return
        trial, old = self.trial, self.stable
        if trial is not None and trial.canary.version == wanted.version:
            self.stable, self.trial, self.refused = trial.canary, None, None
        elif (loaded := self._load(wanted)) is not None:
            self._end_trial()
            self.stable = loaded
        else:
            return
        self._leave(old)
        log.warning("version %s answers now, before it %s", self.stable.version, old.version)

    def _load(self, wanted: Version) -> Loaded | None:
        try:
            loaded = load_version(wanted, self.args, self.args.name, self.replica)
        except Exception as error:  # whatever readers of files and URIs raise: what is served now goes on
            self.refused = f"version {wanted.version}: {str(error)[:300]}"
            log.error("not served, the old version stays: %s", self.refused)
            return None
        self.refused = None
        return loaded

    def _end_trial(self) -> None:
        if self.trial is not None:
            canary, self.trial = self.trial.canary, None
            self._leave(canary)

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
        here = [self.stable] + ([trial.canary] if trial else [])
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
        return [self.stable, *([trial.canary] if trial else []), *self.others.values()]

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
        return [self.stable, *([trial.canary] if trial else []), *self.others.values(), *left]
