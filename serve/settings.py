"""Settings of the endpoint: the limits of a request, the batches, the replicas, who may ask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator

from resnet.frozen import Frozen
from resnet.images.checks.image_limits import LIMITS

# A core decodes some 500 to 1,000 photographs a second (docs/benchmarks.md), a GPU answers a few thousand: an estimate,
# no GPU has been measured.
DECODING_THREADS = 4


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise ValueError(f"must be a name of letters, digits and . _ -, got {name!r}")
    return name


Name = Annotated[str, AfterValidator(_check_name)]


def from_root(place: str) -> str:
    """A local path from the root, for a process that runs in another folder; a URI as it is."""
    return place if "://" in place else str(Path(place).expanduser().resolve())


class Settings(Frozen):
    """Limits and sizes of the endpoint; each holds for one replica."""

    model_config = ConfigDict(allow_inf_nan=False)

    precision: Annotated[
        Literal["auto", "float32", "tf32", "bfloat16", "int8"],
        Field(
            description="of the convolutions; auto: bfloat16 where the hardware multiplies it natively; tf32: float32 "
            "rounded to 10 bits, on GPUs; int8: on CPUs, of a folder from jobs/export_model.py"
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        Field(
            ge=1,
            le=1024,
            description="torch threads, and threads that decode images. None: 1; with a whole GPU 4, or it waits for "
            "its images: reserve --cpus beside them",
        ),
    ] = None
    batch: Annotated[int, Field(ge=1, le=1024, description="most images of one pass through the network")] = 16
    max_waiting: Annotated[int, Field(ge=1, description="images in progress; more requests are answered by 503")] = 128
    max_images: Annotated[int, Field(ge=1, description="images of one request")] = 32
    max_bytes: Annotated[int, Field(ge=1, description="bytes of one request's body")] = 16 * 2**20
    max_pixels: Annotated[
        int, Field(ge=1, le=LIMITS.pixels, description="pixels of one image, before it is decoded")
    ] = 50_000_000
    timeout: Annotated[
        float, Field(gt=0, le=86_400, description="seconds for a request's body, and again for its answer")
    ] = 30.0
    deadline: Annotated[
        float,
        Field(gt=0, le=60_000, description="milliseconds for a camera's frame: a late one is refused, not queued"),
    ] = 100.0
    index: Annotated[
        str | None, Field(description="folder of jobs/index_images.py: /v1/search finds the nearest of its images")
    ] = None
    max_streams: Annotated[int, Field(ge=0, description="cameras at /v1/stream; more are refused")] = 32
    api_key_file: Annotated[
        str | None, Field(description="file with a line `NAME KEY` for each client; read again when it changes")
    ] = None
    rate_limit: Annotated[
        float | None, Field(gt=0, description="requests a second of one client, over all replicas")
    ] = None
    rate_burst: Annotated[int, Field(ge=1, description="requests of one client at once, under rate_limit")] = 20
    cors_origins: Annotated[
        tuple[str, ...],
        Field(
            description="origins of web pages whose scripts may ask, e.g. https://shop.example, or *; none by default"
        ),
    ] = ()
    access_log: Annotated[bool, Field(description="one line of JSON a request on standard error")] = True
    min_replicas: Annotated[int, Field(ge=0, description="0: none while nobody asks")] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    target_requests: Annotated[float, Field(gt=0, description="requests in progress that call for a replica more")] = 16
    cpus: Annotated[float, Field(ge=0, description="CPUs that Ray reserves a replica")] = 1.0
    gpus: Annotated[float, Field(ge=0, description="GPUs, or a share of one, a replica")] = 0.0
    upscale_delay: Annotated[float, Field(ge=0, description="seconds of load before a replica is added")] = 5.0
    downscale_delay: Annotated[float, Field(ge=0, description="seconds without it before one is ended")] = 60.0
    models: Annotated[
        dict[Name, str],
        Field(description="more models beside, in each replica: name, and folder or URI of the checkpoint"),
    ] = {}  # noqa: RUF012  pydantic copies it

    @field_validator("api_key_file")
    @classmethod
    def _file_is_absolute(cls, value: str | None) -> str | None:
        """A replica runs in another folder than the caller. An empty name, of an unset variable, is no absent one."""
        if value == "":
            raise ValueError("must name a file; without keys leave the option out")
        return None if value is None else from_root(value)

    @field_validator("index")
    @classmethod
    def _index_is_absolute(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            raise ValueError(f"must be a folder that each node can reach, got {value}")
        return None if value is None else from_root(value)

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                raise ValueError(f"must be * or scheme://host[:port] without a path, got {origin}")
        return value

    @field_validator("models")
    @classmethod
    def _folders_are_absolute(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: from_root(place) for name, place in value.items()}

    @property
    def threads_used(self) -> int:
        """Threads of a replica, said or by its share of a GPU."""
        return self.threads or max(1, round(DECODING_THREADS * min(1.0, self.gpus)))

    @property
    def device(self) -> Literal["cuda", "cpu"]:
        """Where a replica computes. One that reserves no GPU sees all of its node's, which are others'."""
        return "cuda" if self.gpus else "cpu"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be at least min_replicas {self.min_replicas}, got {self.max_replicas}")
        if self.max_waiting < self.max_images:
            raise ValueError(f"max_waiting must be at least max_images {self.max_images}, got {self.max_waiting}")
        if self.precision == "int8" and self.gpus:
            raise ValueError(f"gpus must be 0 with precision int8, which is computed on CPUs, got {self.gpus:g}")
        if self.precision == "tf32" and not self.gpus:
            raise ValueError("gpus must be more than 0 with precision tf32, which GPUs have, got 0")
        if 1 < self.gpus != int(self.gpus):
            raise ValueError(f"gpus must be a share of one or a whole number, got {self.gpus:g}")
        return self


class Args(Settings):
    """Arguments of the Ray Serve application: `args` of a config file."""

    checkpoint: Annotated[str, Field(description="folder or URI (s3://, gs://) of a checkpoint")]
    name: Annotated[Name, Field(description="the model's name in answers and /v2")] = "resnet"
    version: Annotated[str, Field(description="the model's version in answers")] = "unregistered"

    @field_validator("checkpoint")
    @classmethod
    def _folder_is_absolute(cls, value: str) -> str:
        return from_root(value)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        if self.name in self.models:
            raise ValueError(f"models must have other names than the served model {self.name}, got {self.name} again")
        return self
