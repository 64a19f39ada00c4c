"""A checkpoint in MLflow's own tools: bytes or base64 in, rows with the endpoint's numbers out."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serve.inference.classifier import Classifier
from serve.pyfunc_model import BATCH, ImageClassifier, _load_pyfunc, column, encoded

Picture = Callable[..., bytes]


@pytest.fixture(scope="module")
def model(cifar: Path) -> ImageClassifier:
    return _load_pyfunc(str(cifar))


def test_a_row_an_image_with_the_endpoints_numbers_over_several_batches(
    model: ImageClassifier, cifar: Path, picture: Picture
):
    images = [picture(seed) for seed in range(BATCH + 3)]
    rows = model.predict(pd.DataFrame({"image": images, "other": range(len(images))}))
    own = Classifier(str(cifar), precision=model.classifier.precision)
    assert list(rows.columns) == ["id", "wnid", "name", "probability", "probabilities"]
    for data, (_, row) in zip(images, rows.iterrows(), strict=True):
        ((best,),) = own.predict([data], 1)
        assert (row["id"], row["wnid"], row["name"]) == (
            best.image_class.id,
            best.image_class.wnid,
            best.image_class.name,
        )
        assert row["probability"] == pytest.approx(best.probability, abs=0.02)  # another batch rounds otherwise
        assert np.argmax(row["probabilities"]) == row["id"]
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    "shape", [list, lambda images: {"image": images}, lambda images: pd.DataFrame({"image": images})]
)
def test_lists_mappings_and_tables_are_the_same_images(shape: Callable[[list[str]], Any]):
    images = [base64.b64encode(b"one").decode(), base64.b64encode(b"two").decode()]
    assert [encoded(value) for value in column(shape(images))] == [b"one", b"two"]


@pytest.mark.parametrize("value", [bytearray(b"one"), memoryview(b"one"), b"one"])
def test_bytes_are_taken_as_they_are(value: Any):
    assert encoded(value) == b"one"


@pytest.mark.parametrize(("value", "kind"), [("no base64!", "str"), (3, "int"), (None, "NoneType")])
def test_what_is_no_image_is_one_sentence(value: Any, kind: str):
    with pytest.raises(ValueError, match=f"^an image must be bytes or base64, got {kind}$"):
        encoded(value)
    with pytest.raises(ValueError, match=r"the input must have column image, .* got columns \['picture'\]$"):
        column(pd.DataFrame({"picture": [value]}))


def test_an_image_that_cannot_be_decoded_is_refused_in_the_endpoints_words(model: ImageClassifier):
    with pytest.raises(ValueError, match=r"^an image must be JPEG, PNG"):
        model.predict([b"no image"])
