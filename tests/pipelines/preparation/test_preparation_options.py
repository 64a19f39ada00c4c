"""Options that do not fit each other are one sentence, before anything is written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.preparation.preparation_options import QUALITY, Preparation
from pipelines.preparation.prepare import prepare
from pipelines.preparation.sources import Source
from pipelines.shards.manifest import Encoding
from tests.pipelines.preparation.sources_on_disk import (
    cats_and_dogs,
    refused,
)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"val_share": 0.6, "test_share": 0.5}, "must leave images to train, got 0.6 and 0.5"),
        ({"val_share": 0.2, "group_csv": "x.csv"}, "group_csv and group_column must be given together"),
        ({"val_share": 0.2, "group_part": 1, "group_pattern": "x"}, "one of group_csv, group_part and group_pattern"),
        ({"val_share": 0.2, "group_pattern": "("}, "must be a regular expression"),
        ({"group_part": 1}, "a group has an effect only with val_share, test_share or folds"),
        ({"split_seed": 3}, "split_seed has an effect only with val_share, test_share or folds"),
        ({"folds": 3, "val_share": 0.2}, "val_share must be left out with folds, each of which is val once, got 0.2"),
        ({"folds": 3}, "folds must be left out where there is a split val"),
        ({"val_share": 0.2}, "val_share must be left out where there is a split val"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(
    tmp_path: Path, seeds: Iterator[int], options: dict[str, Any], sentence: str
) -> None:
    cats_and_dogs(tmp_path / "images", seeds)
    preparation = Preparation(
        source=Source(path=str(tmp_path / "images")), out=str(tmp_path / "out"), workers=0, **options
    )
    refused(sentence, prepare, preparation)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"grey_range": (0, 4095), "measure_grey_range": True}, "grey_range must be left out with measure_grey_range"),
        ({"verify": True, "source": Source(path="x")}, "source must be left out with verify, .* got x"),
        ({"val_share": 1.0}, "val_share must be less than 1, got 1.0"),
        ({"max_rejected": 2}, "max_rejected must be less than or equal to 1, got 2"),
        ({"workers": -1}, "workers must be greater than or equal to 0, got -1"),
        ({}, "out of Preparation is missing"),
    ],
)
def test_options_are_checked_where_they_are_read(options: dict[str, Any], sentence: str) -> None:
    out = {"out": "x"} if options else {}
    refused(f"^{sentence}", Preparation, **out, **options)


def test_a_quality_is_chosen_where_images_are_encoded_and_only_there() -> None:
    assert Preparation(out="x").encoding == Encoding()
    assert Preparation(out="x", shorter_side=256).encoding == Encoding(shorter_side=256, quality=QUALITY)
    assert Preparation(out="x", shorter_side=256, quality=75).encoding == Encoding(shorter_side=256, quality=75)
    with pytest.raises(ValueError, match="shorter_side and quality must be given together"):
        _ = Preparation(out="x", quality=75).encoding


def test_groups_and_seed_reach_the_drawing() -> None:
    drawing = Preparation(out="x", val_share=0.2, split_seed=3, group_part=2, keep_test=True).drawing
    assert (drawing.val_share, drawing.seed, drawing.group.part, drawing.keep_test) == (0.2, 3, 2, True)
    assert not Preparation(out="x").drawing.draws
