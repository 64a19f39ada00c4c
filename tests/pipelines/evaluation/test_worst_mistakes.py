"""Pictures of wrong answers: of the right images, in their order."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.evaluation.worst_mistakes import SHOWN, worst_mistakes
from pipelines.models.by_name import open_checkpoint
from pipelines.shards.row_groups import open_split


def test_pictures_are_of_the_images_that_were_named(untrained: Any, digits: str) -> None:
    (place,) = untrained(0).glob("step-*")
    model, val = open_checkpoint(str(place))[0], open_split(digits, "val")[1]
    rows = [val.read(group, ("image", "label", "key")) for group in range(len(val.rows))]
    keys, labels, images = ([value for part in rows for value in part[name]] for name in ("key", "label", "image"))
    outputs, scores = np.arange(360) % 10, np.linspace(0, 1, 360)
    places = [300, 7, 130, *range(20, 40)]  # of several row groups, more than one batch
    found = worst_mistakes(model, val, places, outputs, scores, scores[::-1])
    assert [m.key for m in found] == [keys[p] for p in places]
    assert [m.label for m in found] == [labels[p] for p in places]
    assert [m.output for m in found] == outputs[places].tolist()
    assert [m.score_of_label for m in found] == pytest.approx(scores[::-1][places])
    picture = np.asarray(Image.open(io.BytesIO(found[0].picture)))
    assert picture.shape == (SHOWN, 2 * SHOWN, 3)
    expected = Image.open(io.BytesIO(images[300])).convert("RGB").resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
    gap = np.abs(picture[8:-8, 8 : SHOWN - 8].astype(int) - np.asarray(expected)[8:-8, 8:-8])
    assert gap.mean() < 1, "the left half is the image"
