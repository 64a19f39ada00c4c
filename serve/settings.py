"""Settings of the endpoint: the limits of a request, the batches, the replicas, who may ask."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from resnet.frozen import Frozen

NAME = r"^[A-Za-z0-9][\w.-]*$"


class Settings(Frozen):
    """Limits and sizes of the endpoint; each holds for one replica."""

    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "int8"],
        Field(
            description="of the convolutions; auto: bfloat16 where the hardware multiplies it natively; int8: on CPUs, "
            "of a folder from jobs/export_model.py"
        ),
    ] = "auto"
    threads: Annotated[int, Field(ge=1, description="torch threads, and threads that decode images")] = 1
    batch: Annotated[int, Field(ge=1, le=1024, description="most images of one pass through the network")] = 16
    max_waiting: Annotated[int, Field(ge=1, description="images in progress; more requests are answered by 503")] = 128
    max_images: Annotated[int, Field(ge=1, description="images of one request")] = 32
    max_bytes: Annotated[int, Field(ge=1, description="bytes of one request's body")] = 16 * 2**20
    max_pixels: Annotated[
        int, Field(ge=1, description="pixels of one image, before it is decoded; at most 89,478,485")
    ] = 50_000_000
    timeout: Annotated[float, Field(gt=0, description="seconds for a request's body, and again for its answer")] = 30.0
    api_key_file: Annotated[
        str | None, Field(description="file with a line `NAME KEY` for each client; read again when it changes")
    ] = None
    rate_limit: Annotated[
        float | None, Field(gt=0, description="requests a second of one client, over all replicas")
    ] = None
    rate_burst: Annotated[int, Field(ge=1, description="requests of one client at once, under rate_limit")] = 20
    access_log: Annotated[bool, Field(description="one line of JSON a request on standard error")] = True
    min_replicas: Annotated[int, Field(ge=0, description="0: none while nobody asks")] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 1
    target_requests: Annotated[float, Field(gt=0, description="requests in progress that call for a replica more")] = 16
    cpus: Annotated[float, Field(ge=0, description="CPUs that Ray reserves a replica")] = 1.0
    gpus: Annotated[float, Field(ge=0, description="GPUs, or a share of one, a replica")] = 0.0
    upscale_delay: Annotated[float, Field(ge=0, description="seconds of load before a replica is added")] = 5.0
    downscale_delay: Annotated[float, Field(ge=0, description="seconds without it before one is ended")] = 60.0
    models: Annotated[
        dict[Annotated[str, Field(pattern=NAME)], str],
        Field(description="more models beside, in each replica: name, and folder or URI of the checkpoint"),
    ] = {}  # noqa: RUF012  pydantic copies it

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas must be at least min_replicas {self.min_replicas}, got {self.max_replicas}")
        if self.max_waiting < self.max_images:
            raise ValueError(f"max_waiting must be at least max_images {self.max_images}, got {self.max_waiting}")
        return self


class Args(Settings):
    """Arguments of the Ray Serve application: `args` of a config file."""

    checkpoint: Annotated[str, Field(description="folder or URI (s3://, gs://) of a checkpoint")]
    name: Annotated[str, Field(pattern=NAME, description="the model's name in answers and /v2")] = "resnet"
    version: Annotated[str, Field(description="the model's version in answers")] = "unregistered"

    @field_validator("checkpoint")
    @classmethod
    def _folder_is_absolute(cls, value: str) -> str:
        """A replica runs in another folder than the caller."""
        return value if "://" in value else str(Path(value).expanduser().resolve())
