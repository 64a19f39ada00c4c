"""The time that a training will still take, from what its parts have taken so far."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHORTEST = 5.0  # seconds that the pace is averaged over at least,
SHARE = 0.25  # and this share of the training so far: a machine's other load comes and goes
FORWARD = 0.35  # of a training step's time: an image through the network without gradients


@dataclass
class TimeLeft:
    """The parts of a training and their durations. batch, train, val: images; every: steps between two evaluations.

    statistics: steps of batch norm's averages at the end. end: seconds for what comes after the workers.
    """

    total: int
    batch: int
    every: int
    train: int
    val: int
    statistics: int = 0
    end: float = 0.0
    _pace: float = 0.0  # seconds a step
    _trained: float = 0.0
    _image: float = 0.0  # seconds an evaluated image

    def trained(self, steps: int, seconds: float) -> None:
        """So many steps took so long, evaluations not counted."""
        if steps <= 0 or seconds <= 0:
            return
        self._trained += seconds
        pace, span = seconds / steps, max(SHORTEST, SHARE * self._trained)
        weight = 1.0 if self._pace == 0 else 1 - math.exp(-seconds / span)
        self._pace += weight * (pace - self._pace)

    def evaluated(self, images: int, seconds: float) -> None:
        """So many images were evaluated in so long."""
        if images > 0:
            self._image = seconds / images

    @property
    def step_seconds(self) -> float | None:
        """Seconds that a training step takes; None before it is known."""
        return self._pace or None

    @property
    def images_per_second(self) -> float:
        """Of the training; 0 before it is known."""
        return self.batch / self._pace if self._pace else 0.0

    def seconds(self, step: int, *, is_testing: bool = False) -> float | None:
        """From a step to the end of all; None before the first steps. is_testing: without the test of the finished
        network, which is going on."""
        if not self._pace:
            return None
        image = self._image or FORWARD * self._pace / self.batch
        evaluations = math.ceil(self.total / self.every) - step // self.every if step < self.total else 0
        steps = (self.total - step) * self._pace
        if step < self.total:
            steps += self.statistics * FORWARD * self._pace
        test = 0.0 if is_testing else (self.train + self.val) * image
        return steps + evaluations * self.val * image + test + self.end
