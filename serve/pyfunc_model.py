"""A registered version in MLflow's own tools: what its MLmodel names as loader_module. Knows nothing of MLflow.

`mlflow.pyfunc.load_model("models:/resnet@champion").predict(pandas.DataFrame({"image": [bytes, ...]}))` gives a row an
image with the most probable class and all probabilities, the endpoint's own numbers.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from serve.inference.dense.dense_model import DenseModel
from serve.inference.dense.open_model import open_offline

BATCH = 16  # images of one pass through the network


class ImageClassifier:
    """Encoded images to classes, boxes or masks, by the endpoint's model."""

    def __init__(self, path: str) -> None:
        self.classifier = open_offline(path)

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """A table with a row an image. model_input: a table with column `image`, or a list, of encoded images: bytes,
        or base64 in JSON. ValueError: there is no such column, or an image cannot be decoded."""
        import pandas as pd

        images = [encoded(value) for value in column(model_input)]
        rows = []
        for start in range(0, len(images), BATCH):
            crops = [self.classifier.crop(data) for data in images[start : start + BATCH]]
            for answer in self.classifier.run_batch(crops):
                if isinstance(self.classifier, DenseModel):
                    rows.append(self._places(answer))
                    continue
                best = self.classifier.best(answer.probabilities, 1)[0]
                known = best.image_class.model_dump(include={"id", "wnid", "name"})
                probabilities = answer.probabilities.astype(float).tolist()
                rows.append(known | {"probability": best.probability, "probabilities": probabilities})
        return pd.DataFrame(rows)

    def _places(self, answer: Any) -> dict[str, Any]:
        """An image's boxes with names and scores, or its mask as a PNG and the names of its values."""
        assert isinstance(self.classifier, DenseModel)
        found = self.classifier.row(answer)
        if "mask" in found:
            return found | {"classes": [c.name for c in self.classifier.classes]}
        return {"boxes": found["box"], "names": found["name"], "scores": found["score"]}


def column(model_input: Any) -> list[Any]:
    """The encoded images of a table, a mapping or a list."""
    if isinstance(model_input, list | tuple):
        return list(model_input)
    names = list(getattr(model_input, "columns", model_input))
    if "image" not in names:
        raise ValueError(f"the input must have column image, with encoded images, got columns {names}")
    return list(model_input["image"])


def encoded(value: Any) -> bytes:
    """The bytes of an image as they come: bytes, or base64."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ValueError(f"an image must be bytes or base64, got {type(value).__name__}") from None


def _load_pyfunc(path: str) -> ImageClassifier:
    """MLflow's call."""
    return ImageClassifier(path)
