"""The 1000 classes of ILSVRC2012 in the order of torchvision's weights: sorted by WordNet id."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def names_by_wnid() -> dict[str, str]:
    """Human name of each of the 1000 WordNet ids, as torchvision's weights carry them, in the order of the outputs."""
    # A table of our own: importing torchvision for it takes 5 to 12 seconds. A test compares the two.
    lines = (resources.files("pipelines.shards") / "imagenet_classes.txt").read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines)


@cache
def wnids() -> tuple[str, ...]:
    """WordNet ids of the classes 0 to 999, n01440764 (tench) to n15075141 (toilet tissue)."""
    return tuple(names_by_wnid())
