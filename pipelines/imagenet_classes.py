"""The 1000 classes of ILSVRC2012 in the order of torchvision's weights: sorted by WordNet id."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def wnids() -> tuple[str, ...]:
    """WordNet ids of the classes 0 to 999, n01440764 (tench) to n15075141 (toilet tissue)."""
    return tuple((resources.files("pipelines") / "imagenet_wnids.txt").read_text().split())


@cache
def names() -> dict[str, str]:
    """Human name of each of the 1000 WordNet ids, as torchvision's weights carry them."""
    # Seconds of imports, so only where a source has such classes.
    from torchvision.models import ResNet18_Weights

    return dict(zip(wnids(), ResNet18_Weights.IMAGENET1K_V1.meta["categories"], strict=True))
