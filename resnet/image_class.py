"""A class of images: what a label means. No torch here, so that tasks which only read shards start fast."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from resnet.frozen import Frozen


class ImageClass(Frozen):
    """id: the label; wnid: WordNet id, or the folder's name where there is none; name: for people."""

    id: Annotated[int, Field(ge=0)]
    wnid: str
    name: str
