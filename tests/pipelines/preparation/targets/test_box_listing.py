import json
import math

import pytest

from pipelines.preparation.targets.box_listing import FLAT, BoxedImage, Named, box_listing
from pipelines.storage import Folder
from resnet.image_class import ImageClass

CLASSES = [ImageClass(id=0, wnid="cell", name="cell")]


def targets(tmp_path, *boxes, objects=None):
    objects = [Named("cell", list(box)) for box in boxes] if objects is None else objects
    image = BoxedImage("key", "a.jpg", 10, 40, 30, objects)
    return box_listing("voc", Folder(str(tmp_path)), CLASSES, {"train": [image]})


def test_a_pixel_over_the_edge_is_cut_off(tmp_path):
    """VOC counts pixels from 1, so that its right edge may be the width, and others round."""
    (row,) = targets(tmp_path, (-0.5, 0, 40.6, 31)).splits["train"].to_pylist()
    assert json.loads(row["target"])["boxes"] == [[0, 0, 40, 30]]


def test_objects_without_area_are_left_out_and_told(tmp_path):
    found = targets(tmp_path, (5, 5, 5, 9), (1, 1, 3, 3))
    (row,) = found.splits["train"].to_pylist()
    assert json.loads(row["target"])["boxes"] == [[1, 1, 3, 3]]
    assert found.converted[0].what == FLAT
    assert found.converted[0].keys == ("key",)
    assert found.notes == (f"1 {FLAT}: key",)


def test_difficult_objects_are_kept_as_ignored(tmp_path):
    found = targets(tmp_path, objects=[Named("cell", [1, 1, 3, 3], True)])
    (row,) = found.splits["train"].to_pylist()
    assert json.loads(row["target"])["ignored"] == [True]


def test_a_set_without_any_box_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold images with boxes, none of its images has one"):
        targets(tmp_path)


@pytest.mark.parametrize("box", [(math.nan, 1, 5, 9), (1, 1, math.nan, 9), (1, 1, math.inf, 9), (1, -9, 5, 9)])
def test_a_side_that_is_no_place_in_the_image_is_refused(tmp_path, box):
    with pytest.raises(ValueError, match="boxes of key must lie inside its 40 x 30 pixels"):
        targets(tmp_path, box)
