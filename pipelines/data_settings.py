"""Data: the part of a run that says where its shards are and how they reach the workers."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.file_names import absolute
from resnet.frozen import FrozenSettings


class Data(FrozenSettings):
    """The shards, and the way in which they reach the workers."""

    path: Annotated[
        str | None,
        Field(description="shards from jobs/write_shards.py: a folder or URI. None: the embedded handwritten digits"),
    ] = None
    window: Annotated[
        int | None,
        Field(
            ge=1,
            description="row groups that are shuffled together; a resume re-reads at most one window. None: 16, and in "
            "batches of more than 512 images one for each 32 of them, so that so many workers read nothing twice",
        ),
    ] = None
    cache_size: Annotated[
        float | None,
        Field(
            gt=0,
            description="GiB of each node's disk in which shards that are read stay for later epochs and other runs. "
            "None: nothing is kept",
        ),
    ] = None
    cache_path: Annotated[
        str | None,
        Field(description="folder of each node for them, on its own disk. None: cache/ in $RESNET_HOME of the node"),
    ] = None
    decode: Annotated[
        Literal["auto", "tasks", "worker"],
        Field(
            description="where training images are decoded: in Ray Data tasks on any node, or late, in threads of the "
            "worker that trains. auto: in tasks where nodes are left that hold no worker, else late, which copies less"
        ),
    ] = "auto"
    max_replaced: Annotated[
        float, Field(ge=0, le=1, description="share of an epoch's images that may fail to decode and be replaced")
    ] = 0.001
    holdout: Annotated[
        int,
        Field(ge=0, description="training images held out and validated on in place of val; section 4.2: 5000"),
    ] = 0
    memory_limit: Annotated[
        int, Field(ge=1, description="largest decoded set, in MiB, that policy pad-crop keeps in memory")
    ] = 2048

    @field_validator("path")
    @classmethod
    def _folder_is_absolute(cls, value: str | None) -> str | None:
        return value if value is None else absolute(value)

    @field_validator("cache_path")
    @classmethod
    def _cache_is_on_a_disk(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            raise ValueError(f"must be a folder on each node's own disk, got {value}")
        return value if value is None else absolute(value)

    @model_validator(mode="after")
    def _a_cache_has_a_size(self) -> Self:
        if self.cache_path is not None and self.cache_size is None:
            raise ValueError(f"cache_path has no effect without cache_size, got {self.cache_path}")
        return self
