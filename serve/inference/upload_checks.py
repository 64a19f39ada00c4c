"""Checks of an upload: its kind by content and its size by its header, before anything is decoded."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from resnet.images.checks import image_kinds
from resnet.images.checks.image_limits import LIMITS, CorruptImage, Limits, RefusedKind, TooLarge, TooMuchWork
from resnet.images.crops.evaluation_crops import scaled_size
from resnet.images.decode import size_of
from serve.problems import Problem

ACCEPTED = image_kinds.MEDIA_TYPES
STATUS: dict[type[CorruptImage], int] = {RefusedKind: 415, TooLarge: 413, TooMuchWork: 413}


def media_type(data: bytes) -> str:
    """The media type of an image by its first bytes. Problem 415 for a known other format, 400 for anything else."""
    try:
        return image_kinds.kind_of(data).media_type
    except CorruptImage as error:
        raise problem_of(error) from None


def check_upload(data: bytes, max_pixels: int, shorter_side: int) -> None:
    """Problem 400, 413 or 415 for what must not be decoded. shorter_side: that of the evaluation's resize."""
    limits = limits_of(max_pixels)
    try:
        height, width = size_of(data, limits)
    except CorruptImage as error:
        raise problem_of(error) from None
    # A hair of 1 x 100,000 pixels would grow to gigabytes when its shorter side is brought to shorter_side.
    high, wide = scaled_size(height, width, shorter_side)
    if high * wide > limits.pixels:
        raise Problem(413, f"an image must not be so narrow, got {width} x {height}: scaled it is {wide} x {high}")


def problem_of(error: CorruptImage) -> Problem:
    """The answer to an image that is not decoded."""
    return Problem(STATUS.get(type(error), 400), str(error))


@lru_cache(maxsize=4)
def limits_of(max_pixels: int) -> Limits:
    """The limits of all decoding, with the endpoint's own of pixels where it is lower."""
    return replace(LIMITS, pixels=min(max_pixels, LIMITS.pixels))
