"""Admission, order, limits and time-outs of one classifier behind its queue."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from serve.inference.classifier import Answer, Classifier
from serve.inference.inference_service import Inference, Refused, Served
from serve.metrics import Metrics
from serve.problems import Problem
from serve.settings import Settings

Picture = Callable[..., bytes]


@pytest.fixture
def inferences(classifier: Classifier) -> Iterator[Callable[..., Inference]]:
    """Makes services with the settings that are given."""
    made: list[Inference] = []

    def make(**settings: Any) -> Inference:
        labels = {"model": "resnet", "version": "1", "replica": "test"}
        made.append(Inference(classifier, Settings(**settings), Metrics(labels)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_places_are_held_while_in_progress_and_given_back(inferences: Callable[..., Inference]):
    service = inferences(max_waiting=3, max_images=1)
    with service.admit(2):
        assert service.in_progress == 2
        with pytest.raises(Problem, match="2 images are in progress already") as full, service.admit(2):
            pass
        assert (full.value.status, service.in_progress) == (503, 2)
        with service.admit():
            assert service.in_progress == 3
    with pytest.raises(RuntimeError, match="inside"), service.admit():
        raise RuntimeError("inside")
    assert service.in_progress == 0


def test_images_keep_their_order_and_one_that_is_none_its_reason(
    inferences: Callable[..., Inference], classifier: Classifier, picture: Picture
):
    service = inferences(max_images=4)
    images = [picture(0), b"no image", picture(1)]
    outcomes = asyncio.run(service.answer(images))
    assert [type(outcome) for outcome in outcomes] == [Served, Refused, Served]
    for data, outcome in ((images[0], outcomes[0]), (images[2], outcomes[2])):
        assert isinstance(outcome, Served)
        (expected,) = classifier.run_batch([classifier.crop(data)])
        np.testing.assert_allclose(outcome.answer.probabilities, expected.probabilities, atol=1e-5)
        assert min(outcome.decode, outcome.model) > 0
    with pytest.raises(Problem, match="at most 4 images, got 5") as many:
        asyncio.run(service.answer([images[0]] * 5))
    assert many.value.status == 413
    with pytest.raises(Problem, match=r"^image 1 of 2: ") as none:
        asyncio.run(service.answer([b"x", b"%PDF-"]))
    assert len(none.value.errors) == 2
    assert service.in_progress == 0


def test_an_answer_that_takes_too_long_is_504_and_leaves_no_place_taken(
    inferences: Callable[..., Inference], picture: Picture
):
    service = inferences(timeout=0.2)
    release = threading.Event()
    right = service._batcher._compute

    def stuck(batch: Sequence[np.ndarray]) -> Sequence[Answer]:
        release.wait(20)
        return right(batch)

    service._batcher._compute = stuck
    with pytest.raises(Problem, match=r"no answer within 0\.2 seconds") as late:
        asyncio.run(service.answer([picture(0)]))
    release.set()
    assert (late.value.status, service.in_progress) == (504, 0)


def test_the_networks_own_input_needs_no_decoding(inferences: Callable[..., Inference], classifier: Classifier):
    pixels = np.full((32, 32, 3), 7, np.uint8)
    (outcome,) = asyncio.run(inferences().answer([pixels]))
    assert isinstance(outcome, Served)
    (expected,) = classifier.run_batch([pixels])
    np.testing.assert_allclose(outcome.answer.probabilities, expected.probabilities, atol=1e-6)
