"""Which images a finished network gets right, a bit an image."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet.evaluation.final_test import FinalTest, packed, unpacked

FIELDS: dict[str, Any] = {
    "train_error": 1.5,
    "train_examples": 50_000,
    "top1_error": 100 / 3,
    "top5_error": 0.0,
    "examples": 3,
    "predictions_sha256": "0" * 64,
    "right": packed(np.array([True, False, True])),
}


@given(st.lists(st.booleans(), min_size=1, max_size=100))
def test_what_was_packed_comes_back(right: list[bool]) -> None:
    assert unpacked(packed(np.array(right)), len(right)).tolist() == right


def test_the_first_image_is_the_highest_bit_of_the_first_byte() -> None:
    assert packed(np.array([True])) == "gA=="  # 0x80
    assert packed(np.array([False] * 7 + [True])) == "AQ=="  # 0x01
    assert packed(np.array([False] * 8 + [True])) == "AIA="  # 0x00 0x80
    assert len(packed(np.ones(10_000, bool))) == 1668, "1.7 KB, as the docstring says"


@pytest.mark.parametrize("images", [0, 8, 17, 1000])
def test_another_number_of_images_is_one_sentence(images: int) -> None:
    with pytest.raises(ValueError, match=f"right must hold {images} images, got 16 bits"):
        unpacked(packed(np.ones(9, bool)), images)


def test_text_that_is_not_base_64_is_refused() -> None:
    with pytest.raises(ValueError, match="base64"):
        unpacked("no! text", 3)


def test_a_test_survives_json_and_its_errors_are_percentages() -> None:
    found = FinalTest(**FIELDS)
    assert found.are_right().tolist() == [True, False, True]
    assert FinalTest.model_validate_json(found.model_dump_json()) == found
    for field in ("train_error", "top1_error", "top5_error"):
        with pytest.raises(ValueError, match=f"{field} must be less than or equal to 100, got 100.5"):
            FinalTest(**{**FIELDS, field: 100.5})
