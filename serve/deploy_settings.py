"""Options of jobs/deploy_best.py: the application's settings, and the model that it serves."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from serve.haproxy import environment
from serve.haproxy.front_config import FrontChoices
from serve.job_log import JobLog
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
    grow: Annotated[
        bool, Field(description="on a cluster whose autoscaler adds nodes: replicas that fit on none yet may wait")
    ] = False
    every: Annotated[float, Field(gt=0, description="seconds between two looks at the registry")] = 5.0
    canary: Annotated[
        tuple[str, ...],
        Field(description="VERSION=10%, or several: that version answers a tenth of the images, beside the model"),
    ] = ()
    shadow: Annotated[
        tuple[str, ...],
        Field(description="VERSION=10%, or several: it computes a tenth of the images too, compared and not returned"),
    ] = ()
    promote_after: Annotated[
        str | None,
        Field(
            description="30m, 1h, 1d: a canary or shadow with a good verdict for so long takes over by itself, and "
            "with a bad one it goes"
        ),
    ] = None
    promote: Annotated[bool, Field(description="end the canary: its version is what the alias names")] = False
    rollback: Annotated[bool, Field(description="end all canaries and shadows: all is as before them")] = False
    host: Annotated[str, Field(description="address to listen on; 0.0.0.0 for the network")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    proxy: Annotated[
        Literal["auto", "haproxy", "serve"],
        Field(description="who takes the requests, where Ray is this job's own; auto: HAProxy where it runs"),
    ] = "auto"

    log_file: Annotated[
        str | None,
        Field(
            description="file for the lines of replicas and HAProxy, in place of standard error; another is begun "
            "every 64 MiB, and five are kept"
        ),
    ] = None
    grpc_port: Annotated[
        int | None,
        Field(ge=1, le=65535, description="port for gRPC clients of the Open Inference Protocol, while the job stays"),
    ] = None
    trusted_proxies: Annotated[
        tuple[str, ...],
        Field(description="addresses or networks of proxies in front, whose X-Forwarded-For names the client"),
    ] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            try:
                ipaddress.ip_network(address)
            except ValueError as error:
                raise ValueError(f"must be addresses or networks such as 10.0.0.0/8, got {address}: {error}") from None
        return value

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        asked = [name for name in ("canary", "shadow", "promote", "rollback") if getattr(self, name)]
        if len(asked) > 1 and asked != ["canary", "shadow"]:
            raise ValueError(f"only one of canary, promote and rollback can be done at once, got {' and '.join(asked)}")
        if self.promote_after is not None and not (self.canary or self.shadow):
            raise ValueError(f"promote_after is for a canary or shadow that begins now, got {self.promote_after} alone")
        if self.checkpoint is not None and (asked or self.follow):
            raise ValueError(f"{(asked or ['follow'])[0]} is for a registered model, and checkpoint is none")
        if self.grpc_port == self.port:
            raise ValueError(f"grpc_port must be another than port, got {self.grpc_port} twice")
        return self

    def resolved(self, found: dict[str, Any]) -> tuple[Args, Traffic]:
        """The application's arguments, and who answers."""
        traffic = Traffic.model_validate(found)
        shared = {field: getattr(self, field) for field in Settings.model_fields}
        name = self.model.replace("/", "@").partition("@")[0]
        return Args(**shared, checkpoint=traffic.stable.checkpoint, name=name, version=traffic.stable.version), traffic

    def prepare(self, args: Args, private: bool) -> None:
        """ValueError where a replica could not serve what is asked for: said before anything of a cluster is taken.

        private: Ray will be this job's own; then what it must be told before it starts is set.
        """
        from serve import deploy_checks  # loads torch

        if private and self.grow:
            raise ValueError("grow is for a cluster that others started, where an autoscaler adds nodes")
        if self.log_file is not None and not private:
            raise ValueError("log_file is for a Ray of this job's own: a cluster keeps its replicas' lines in its logs")
        if self.trusted_proxies and not private:
            raise ValueError("trusted_proxies is for a Ray of this job's own: on a cluster its Serve was told already")
        if private:
            deploy_checks.require_free_port(self.host, self.port)
            deploy_checks.require_room(self, [deploy_checks.this_machine()])
        if self.grpc_port is not None:
            if not (private or self.follow):
                raise ValueError(
                    "grpc_port is for a job that stays: give follow too, or run python -m serve.grpc_gateway"
                )
            deploy_checks.require_free_port(self.host, self.grpc_port, "grpc_port")
        deploy_checks.require_keys(args)
        served = "checkpoint" if self.checkpoint else f"checkpoint of {self.model}, version {args.version},"
        deploy_checks.require_servable_models(args, served)
        deploy_checks.require_index(args)
        if private:
            self._prepare_private()

    def _prepare_private(self) -> None:
        """Set where a Ray of this job's own logs, and HAProxy, which alone listens on the host."""
        try:
            log = JobLog(self.log_file).path
        except OSError as error:
            raise ValueError(
                f"log_file must be one that can be written, got {self.log_file}: {error.strerror}"
            ) from None
        most = self.max_waiting + self.max_streams  # a camera has a connection as long as it stays
        wanted = {"timeout": self.timeout, "most": most, "keys": self.api_key_file, "host": self.host}
        environment.use_haproxy(self.proxy, FrontChoices(**wanted, trusted=self.trusted_proxies, log=log))

    def require_room(self, nodes: Sequence[Mapping[str, float]]) -> None:
        """ValueError where the replicas fit on no node of a cluster: Serve would wait for one, for ever.

        nodes: CPUs and GPUs of each.
        """
        from serve import deploy_checks

        if not self.grow:
            deploy_checks.require_room(self, nodes)
