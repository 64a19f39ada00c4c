"""Mistakes in a model are one sentence: field, what is allowed, what was given."""

import math
import re
from typing import Annotated, Any, Self

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from resnet.frozen import Frozen, sentence


class Side(Frozen):
    length: Annotated[int, Field(ge=1)] = 2
    unit: str = "pixel"

    @field_validator("unit")
    @classmethod
    def _known(cls, unit: str) -> str:
        if unit not in ("pixel", "inch"):
            raise ValueError(f"must be pixel or inch, got {unit}")
        return unit

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.length % 2:
            raise ValueError(f"length must be even, got {self.length}")
        return self


class Box(Frozen):
    name: str
    sides: tuple[Side, ...] = ()
    weight: float = 0.0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "name of Box is missing"),
        ({"name": "a", "color": 1}, "color is no field of Box"),
        ({"name": 3}, "name must be a valid string, got 3"),
        ({"name": "a", "sides": [{"length": 0}]}, "sides.0.length must be greater than or equal to 1, got 0"),
        ({"name": "a", "sides": [{}, {"length": 3}]}, "sides.1.length must be even, got 3"),
        ({"name": "a", "sides": [{"unit": "mile"}]}, "sides.0.unit must be pixel or inch, got mile"),
        ({"name": "a", "sides": [{"depth": 1}]}, "sides.0.depth is no field of Side"),
    ],
)
def test_a_mistake_is_one_sentence(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$") as caught:
        Box(**fields)
    assert type(caught.value) is ValueError, "pydantic's own error has several lines"


def test_the_sentence_of_pydantics_own_error_is_the_same() -> None:
    with pytest.raises(ValidationError) as caught:
        Box.model_validate({"name": "a", "sides": [{"length": 3}]})
    assert sentence(caught.value) == "sides.0.length must be even, got 3"


def test_nothing_can_be_changed() -> None:
    box = Box(name="a")
    with pytest.raises(ValidationError, match="frozen"):
        box.name = "b"  # pyright: ignore[reportAttributeAccessIssue]
    assert hash(box) == hash(Box(name="a")), "equal models are one key"  # pyright: ignore[reportUnhashable]


@pytest.mark.parametrize("weight", [math.inf, -math.inf, math.nan])
def test_what_is_no_finite_number_survives_json(weight: float) -> None:
    back = Box.model_validate_json(Box(name="a", weight=weight).model_dump_json()).weight
    assert back == weight or (math.isnan(back) and math.isnan(weight))
