import json

import pytest
from PIL import Image

from pipelines.preparation.sources import Source, list_source
from tests.pipelines.dense.small_sets import drawn

CATEGORIES = [{"id": 7, "name": "light"}, {"id": 3, "name": "dark"}]


def coco_set(root, places):
    """A set in COCO's layout. places: where annotations and images of each split lie."""
    number = 0
    for (file, folder), count in places.items():
        images, annotations = [], []
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        for _ in range(count):
            pixels, (left, top, right, bottom), name = drawn(number)
            Image.fromarray(pixels).save(root / folder / f"{number}.jpg")
            images.append({"id": 100 + number, "file_name": f"{number}.jpg", "width": 64, "height": 64})
            box = [left, top, right - left, bottom - top]
            category = {"light": 7, "dark": 3}[name]
            annotations.append(
                {"id": number, "image_id": 100 + number, "category_id": category, "bbox": box, "iscrowd": 0}
            )
            number += 1
        (root / file).write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))


PLACES = [
    {("annotations/instances_train2017.json", "train2017"): 3, ("annotations/instances_val2017.json", "val2017"): 2},
    {("annotations/instances_train.json", "images/train"): 3, ("annotations/instances_val.json", "images/val"): 2},
    {("train/_annotations.coco.json", "train"): 3, ("valid/_annotations.coco.json", "valid"): 2},
]


def listing(root):
    return list_source(Source(path=str(root)))


@pytest.mark.parametrize("places", PLACES)
def test_its_layouts_are_told_by_their_files(tmp_path, places):
    coco_set(tmp_path, places)
    found = listing(tmp_path)
    assert (found.kind, found.targets) == ("coco", "boxes")
    assert [c.name for c in found.classes] == ["dark", "light"]  # by their ids in the file
    assert {split: table.num_rows for split, table in found.splits.items()} == {"train": 3, "val": 2}
    for row in found.splits["train"].to_pylist():
        _, box, name = drawn(int(row["key"].partition(".")[0]))
        target = json.loads(row["target"])
        assert (target["boxes"], target["labels"]) == ([box], [["dark", "light"].index(name)])
        assert (tmp_path / row["path"]).stat().st_size == row["size"]


def changed(root, change):
    coco_set(root, PLACES[0])
    file = root / "annotations/instances_train2017.json"
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


def other_category(fields):
    fields["annotations"][0]["category_id"] = 99


def no_images(fields):
    del fields["images"]


def other_file(fields):
    fields["images"][1]["file_name"] = "absent.jpg"


def box_outside(fields):
    fields["annotations"][0]["bbox"] = [60, 60, 20, 20]


def no_box(fields):
    del fields["annotations"][0]["bbox"]


def three_sides(fields):
    fields["annotations"][0]["bbox"] = [1, 2, 3]


def no_number(fields):
    fields["annotations"][0]["bbox"][0] = float("nan")


def other_image(fields):
    fields["annotations"][1]["image_id"] = 999


def no_width(fields):
    del fields["images"][2]["width"]


def other_categories(fields):
    fields["categories"][0]["name"] = "bright"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_category, "category_id of annotation 0 .* must be one of its categories, got 99"),
        (no_images, "must be JSON of COCO: images of CocoFile is missing"),
        (no_box, "must be JSON of COCO: annotations.0.bbox of CocoFile is missing"),
        (three_sides, "must be JSON of COCO: annotations.0.bbox.3 "),
        (no_number, "must be JSON of COCO: annotations.0.bbox.0 must be a finite number"),
        (no_width, "must be JSON of COCO: images.2.width of CocoFile is missing"),
        (other_image, "image_id of annotation 1 .* must be one of its images, got 999"),
        (other_file, "train2017 must hold absent.jpg, which annotations/instances_train2017.json names"),
        (box_outside, "boxes of 0.jpg must lie inside its 64 x 64 pixels, .* got 60 60 80 80"),
        (other_categories, "categories must be the same in all files of annotations"),
    ],
)
def test_what_contradicts_itself_is_one_sentence(tmp_path, change, sentence):
    changed(tmp_path, change)
    with pytest.raises(ValueError, match=sentence) as caught:
        listing(tmp_path)
    assert "\n" not in str(caught.value)
