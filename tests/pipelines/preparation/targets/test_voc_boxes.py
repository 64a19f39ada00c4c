import json

import pytest

from pipelines.preparation.sources import Source, list_source
from pipelines.preparation.splits.drawn_splits import Drawing
from tests.pipelines.dense.small_sets import annotation, drawn, voc_set


def listing(root, **asked):
    return list_source(Source(path=str(root), **asked))


def test_its_layout_is_told_by_its_folders(tmp_path):
    voc_set(tmp_path, train=4, val=2)
    found = listing(tmp_path)
    assert (found.kind, found.targets) == ("voc", "boxes")
    assert [c.name for c in found.classes] == ["dark", "light"]
    assert {split: table.num_rows for split, table in found.splits.items()} == {"train": 4, "val": 2}
    rows = found.splits["train"].to_pylist()
    for seed, row in enumerate(rows):
        _, box, name = drawn(seed)
        target = json.loads(row["target"])
        assert (row["key"], row["path"]) == (f"image{seed:02d}", f"JPEGImages/image{seed:02d}.jpg")
        assert (target["boxes"], target["labels"]) == ([box], [["dark", "light"].index(name)])


def test_without_splits_val_is_drawn(tmp_path):
    voc_set(tmp_path, train=8, val=2)
    for name in ("train", "val"):
        (tmp_path / f"ImageSets/Main/{name}.txt").unlink()
    with pytest.raises(ValueError, match=r"no split val; --val-share 0.2 draws one"):
        listing(tmp_path)
    found = list_source(Source(path=str(tmp_path)), Drawing(val_share=0.3))
    assert {split: table.num_rows for split, table in found.splits.items()} == {"train": 7, "val": 3}


def test_a_list_of_classes_gives_the_order(tmp_path):
    voc_set(tmp_path / "set", train=4, val=2)
    (tmp_path / "classes.txt").write_text("light\ndark\n")
    assert [c.name for c in listing(tmp_path / "set", classes=str(tmp_path / "classes.txt")).classes] == [
        "light",
        "dark",
    ]
    (tmp_path / "classes.txt").write_text("light\n")
    with pytest.raises(ValueError, match="class of an object in image01 must be one of light, got dark"):
        listing(tmp_path / "set", classes=str(tmp_path / "classes.txt"))


def replaced(root, text):
    voc_set(root, train=4, val=2)
    (root / "Annotations/image02.xml").write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (annotation([("dark", [1, 1, 90, 9])]), "boxes of image02 must lie inside its 64 x 64 pixels, .* got 1 1 90 9"),
        (annotation([("dark", [-5, 1, 9, 9])]), "boxes of image02 must lie inside its 64 x 64 pixels, .* got -5 1 9 9"),
        (annotation([("dark", [9, 1, 2, 9])]), "boxes of image02 must lie inside .*, left before right"),
        (
            "<annotation></annotation>",
            "Annotations/image02.xml must be an annotation of Pascal VOC: .* has no size/width",
        ),
        ("no xml", "Annotations/image02.xml must be an annotation of Pascal VOC"),
        (annotation([("", [1, 1, 9, 9])]), "object has no name"),
    ],
)
def test_what_contradicts_the_image_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        listing(replaced(tmp_path, text))


def test_an_image_without_annotation_is_named(tmp_path):
    voc_set(tmp_path, train=4, val=2)
    (tmp_path / "Annotations/image03.xml").unlink()
    with pytest.raises(ValueError, match=r"must hold Annotations/image03.xml, which its splits name"):
        listing(tmp_path)
