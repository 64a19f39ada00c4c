"""Options of jobs/deploy_best.py: the application's settings, and the model that it serves."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from serve.settings import Args, Settings
from serve.versions.traffic import Traffic


class Deploy(Settings):
    """Options of jobs/deploy_best.py."""

    model: Annotated[str, Field(description="registered model: NAME@ALIAS or NAME/VERSION")] = "resnet@champion"
    checkpoint: Annotated[
        str | None, Field(description="serve this checkpoint, a folder or URI, and ask no registry")
    ] = None
    network: Annotated[
        str | None, Field(description="what a checkpoint holds that is a file of weights: imagenet-resnet50-B-v1.5")
    ] = None
    preprocess: Annotated[
        str | None,
        Field(description="RESIZE[,CROP[,bicubic]] for a file of weights that does not say, e.g. 232; else its own"),
    ] = None
    follow: Annotated[
        bool, Field(description="on a running cluster too stay, and follow the registry until Ctrl-C")
    ] = False
    every: Annotated[float, Field(gt=0, description="seconds between two looks at the registry")] = 5.0
    canary: Annotated[
        str | None, Field(description="VERSION=10%: that version answers a tenth of the images, beside the model")
    ] = None
    promote: Annotated[bool, Field(description="end the canary: its version is what the alias names")] = False
    rollback: Annotated[bool, Field(description="end the canary: all is as before it")] = False
    host: Annotated[str, Field(description="address to listen on; 0.0.0.0 for the network")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    proxy: Annotated[
        Literal["auto", "haproxy", "serve"],
        Field(description="who takes the requests, where Ray is this job's own; auto: HAProxy where it runs"),
    ] = "auto"

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        asked = [name for name in ("canary", "promote", "rollback") if getattr(self, name)]
        if len(asked) > 1:
            raise ValueError(f"only one of canary, promote and rollback can be done at once, got {' and '.join(asked)}")
        if self.checkpoint is not None and (asked or self.follow):
            raise ValueError(f"{(asked or ['follow'])[0]} is for a registered model, and checkpoint is none")
        return self

    def resolved(self, found: dict[str, Any]) -> tuple[Args, Traffic]:
        """The application's arguments, and who answers. ValueError where a folder is no checkpoint."""
        traffic = Traffic.model_validate(found)
        checkpoint = traffic.stable.checkpoint
        if "://" not in checkpoint and not (Path(checkpoint).expanduser() / "model.safetensors").is_file():
            raise ValueError(f"checkpoint must be a folder with model.safetensors, got {checkpoint}")
        for place in (checkpoint, *self.models.values()):
            from serve.inference import checkpoint_files  # loads torch

            checkpoint_files.require(place)
        shared = {field: getattr(self, field) for field in Settings.model_fields}
        name = self.model.replace("/", "@").partition("@")[0]
        return Args(**shared, checkpoint=checkpoint, name=name, version=traffic.stable.version), traffic

    def require_free_port(self) -> None:
        """ValueError where another program listens on the port: said before Ray takes its seconds to start."""
        with socket.socket(socket.AF_INET6 if ":" in self.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise ValueError(f"port must be free on {self.host}, got {self.port}: {error.strerror}") from None
