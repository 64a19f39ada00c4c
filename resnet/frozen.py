"""Frozen pydantic models that refuse unknown fields, and their errors as one sentence."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

LONGEST = 200  # characters of a value in an error


class Frozen(BaseModel):
    """An immutable model that refuses unknown fields, and says in one sentence what is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise ValueError(sentence(error)) from None


class FrozenSettings(Frozen):
    """Settings of a person: their numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


def sentence(error: ValidationError) -> str:
    """The first mistake that pydantic found: field, what is allowed, what was given."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"]
    if first["type"] == "value_error":  # our own words, which name the value
        message = message.removeprefix("Value error, ")
        inner = field and message.split()[0].isidentifier() and not message.startswith("must ")
        return f"{field}{'.' if inner else ' '}{message}".strip()
    if first["type"] == "extra_forbidden":
        return f"{field} is no field of {error.title}"
    if first["type"] == "missing":
        return f"{field} of {error.title} is missing"
    if first["type"] == "json_invalid":
        return message
    return f"{field} {message.replace('Input should', 'must')}, got {repr(first['input'])[:LONGEST]}".strip()
