"""From encoded images to answers, many requests side by side: admission, decoding threads, the network's batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from resnet.images import jpeg_region
from resnet.images.checks.image_limits import CorruptImage
from serve.inference import upload_checks
from serve.inference.batching import Batcher
from serve.inference.classifier import Answer, Classifier
from serve.metrics import Metrics
from serve.problems import Problem
from serve.settings import Settings


@dataclass(frozen=True)
class Served:
    """One image's answer and the seconds that it took to decode, wait and compute."""

    answer: Answer
    decode: float
    queue: float
    model: float


@dataclass(frozen=True)
class Refused:
    """One image of several that has no answer, and why: no image, or over a limit."""

    problem: Problem


Outcome = Served | Refused


class Inference:
    """One classifier behind a bounded queue."""

    def __init__(self, classifier: Classifier, settings: Settings, metrics: Metrics) -> None:
        self.classifier = classifier
        self.settings = settings
        self.metrics = metrics
        self.in_progress = 0
        self._batcher = Batcher(classifier.run_batch, settings.batch)
        self._decoders = ThreadPoolExecutor(settings.threads_used, thread_name_prefix="decode")

    def warm_up(self) -> None:
        """Run each power of two and the largest batch, so that no request pays for set-up (on a GPU, for a graph)."""
        jpeg_region.best()  # the first on a machine is compiled
        blank = np.zeros((self.classifier.size, self.classifier.size, 3), np.uint8)
        sizes = {2**k for k in range(self.settings.batch.bit_length())} | {self.settings.batch}
        for size in sorted(sizes, reverse=True):  # graphs share their memory, the smaller ones fit into the first's
            self.classifier.run_batch([blank] * size)

    @contextlib.contextmanager
    def admit(self, images: int = 1) -> Iterator[None]:
        """Hold a place for so many images. Problem 503 where too many are in progress."""
        if self.in_progress + images > self.settings.max_waiting:
            raise Problem(503, f"{self.in_progress} images are in progress already; try again", retry_after=1)
        self.in_progress += images
        self.metrics.in_progress.set(self.in_progress)
        try:
            yield
        finally:
            self.in_progress -= images
            self.metrics.in_progress.set(self.in_progress)

    async def answer(self, images: Sequence[bytes | np.ndarray]) -> list[Outcome]:
        """The outcome of each image, in their order: encoded ones, or the network's input.

        Problem of the image, or of the first, where none can be answered; 504 after the timeout.
        """
        if len(images) > self.settings.max_images:
            raise Problem(413, f"a request must have at most {self.settings.max_images} images, got {len(images)}")
        with self.admit(len(images) - 1):
            try:
                async with asyncio.timeout(self.settings.timeout):
                    return await self._all(images)
            except TimeoutError:
                raise Problem(504, f"no answer within {self.settings.timeout:g} seconds", retry_after=1) from None

    async def _all(self, images: Sequence[bytes | np.ndarray]) -> list[Outcome]:
        if len(images) == 1:  # needs no task of its own
            return [await self._one(images[0])]
        tasks = [asyncio.ensure_future(self._one_of_several(image)) for image in images]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # what still waits is not computed; the rest is done already
        problems = [outcome.problem for outcome in found if isinstance(outcome, Refused)]
        if len(problems) == len(images):
            first = problems[0]
            raise Problem(first.status, f"image 1 of {len(images)}: {first.detail}", errors=problems)
        return found

    async def _one_of_several(self, image: bytes | np.ndarray) -> Outcome:
        try:
            return await self._one(image)
        except Problem as problem:
            return Refused(problem)

    async def _one(self, image: bytes | np.ndarray) -> Served:
        started = perf_counter()
        pixels = image if isinstance(image, np.ndarray) else await self._decoded(image)
        decoded = perf_counter()
        timed = await self._batcher.submit(pixels)
        served = Served(timed.result, decoded - started, timed.queued, timed.computed)
        for phase, seconds in self.metrics.phases.items():
            seconds.observe(getattr(served, phase))
        self.metrics.batch.observe(timed.size)
        self.metrics.passes.inc(1 / timed.size)
        self.metrics.images.inc()
        return served

    async def _decoded(self, data: bytes) -> np.ndarray:
        with self._batcher.announce():
            return await asyncio.get_running_loop().run_in_executor(self._decoders, self._crop, data)

    def _crop(self, data: bytes) -> np.ndarray:
        """The network's input from an upload. Problem for what is no image, or too large to be decoded."""
        upload_checks.check_upload(data, self.settings.max_pixels, self.classifier.shorter_side)
        try:
            return self.classifier.crop(data)
        except CorruptImage as error:
            raise upload_checks.problem_of(error) from None

    def close(self) -> None:
        """End the threads."""
        self._batcher.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
