"""The endpoint's model without the endpoint: the same limits, crop, network and numbers, for jobs/predict_images.py."""

from __future__ import annotations

import numpy as np

from resnet.retrieval.vector_index import IndexCard, weights_sha256
from serve.inference import upload_checks
from serve.inference.classifier import Classifier, fetch_checkpoint
from serve.problems import Problem
from serve.settings import Settings

MAX_PIXELS: int = Settings.model_fields["max_pixels"].default


class Offline(Classifier):
    """A classifier that refuses what the endpoint refuses."""

    def crop(self, data: bytes) -> np.ndarray:
        """The network's input. ValueError: the endpoint's own sentence."""
        try:
            upload_checks.check_upload(data, MAX_PIXELS, self.shorter_side)
        except Problem as problem:
            raise ValueError(problem.detail) from None
        return super().crop(data)


def index_card(checkpoint: str, model: str, version: str) -> IndexCard:
    """The card of an index of a model's embeddings, before there are any."""
    found = fetch_checkpoint(checkpoint)
    digest, network = weights_sha256(found.model), found.recipe.network
    return IndexCard(model=model, version=version, network=network, weights_sha256=digest, width=0, images=0)


def classes_trained_on(checkpoint: str) -> set[str]:
    """Names and ids of the classes that a model was trained on."""
    return {name for known in fetch_checkpoint(checkpoint).progress.classes for name in (known.name, known.wnid)}
