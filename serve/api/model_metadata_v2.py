"""Description of a model for /v2: its inputs and outputs, its configuration for Triton's clients, its statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, Field

from serve.inference.classifier import Classifier

# The protocol's names, and those of Triton's configuration
TYPES = {
    "BYTES": "TYPE_STRING",
    "FP32": "TYPE_FP32",
    "INT64": "TYPE_INT64",
    "UINT8": "TYPE_UINT8",
}
ROUTES = ("predict", "embed", "detect", "segment", "infer")  # the ends of the paths that run a network


class TensorMetadata(BaseModel):
    """A tensor of a model. shape: -1 for any number of images."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model's inputs, one of which a request has, and its outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class Duration(BaseModel):
    """A count of events, and their time in all."""

    count: int
    ns: int


class Durations(BaseModel):
    """Of images. queue: waiting for the network; compute_input: decoding; compute_infer: the network."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration
    cache_hit: Duration = Duration(count=0, ns=0)
    cache_miss: Duration = Duration(count=0, ns=0)


class VersionStatistics(BaseModel):
    """Of one version, over all replicas. inference_count: images; execution_count: passes through the network."""

    name: str
    version: str
    inference_count: int
    execution_count: int
    inference_stats: Durations
    batch_stats: list[dict[str, Any]] = []


class ModelStatistics(BaseModel):
    """Counts since the replicas began."""

    model_stats: list[VersionStatistics]


class IndexEntry(BaseModel):
    """A version that is loaded."""

    name: str
    version: str
    state: str = "READY"
    reason: str = ""


class ModelConfiguration(BaseModel):
    """The part of Triton's model configuration that its clients read."""

    name: str
    platform: str
    max_batch_size: Annotated[int, Field(description="0: the first dimension of each tensor is the batch")] = 0
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    version_policy: dict[str, Any] = {"all": {}}
    instance_group: list[dict[str, Any]] = []


def metadata(model: Classifier, name: str, version: str) -> ModelMetadata:
    """The answer of GET /v2/models/NAME."""
    return ModelMetadata(
        name=name,
        versions=[version],
        platform="pytorch",
        inputs=[
            TensorMetadata(name="image", datatype="BYTES", shape=[-1]),
            TensorMetadata(name="pixels", datatype="FP32", shape=[-1, 3, model.size, model.size]),
        ],
        outputs=[TensorMetadata(name=name, datatype=kind, shape=shape) for name, kind, shape in model.tensors],
    )


def configuration(model: Classifier, name: str, version: str) -> ModelConfiguration:
    """The answer of GET /v2/models/NAME/config. Each input is optional: a request has one of the two."""
    told = metadata(model, name, version)

    def tensor(described: TensorMetadata) -> dict[str, Any]:
        return {"name": described.name, "data_type": TYPES[described.datatype], "dims": described.shape}

    return ModelConfiguration(
        name=name,
        platform=told.platform,
        input=[tensor(each) | {"optional": True} for each in told.inputs],
        output=[tensor(each) for each in told.outputs],
    )


def version_statistics(replicas: Iterable[Sequence[Metric]], name: str, version: str) -> VersionStatistics:
    """The counters of a version as Triton's clients read them. replicas: the metrics of each (serve/metrics.py)."""
    values: dict[tuple[str, str], float] = {}
    failed = 0.0
    for sample in (s for families in replicas for family in families for s in family.samples):
        labels = sample.labels
        if (labels.get("model"), labels.get("version")) != (name, version):
            continue
        key = sample.name, labels.get("phase", "")
        values[key] = values.get(key, 0.0) + sample.value
        ours = sample.name == "resnet_requests_total" and labels["path"].endswith(ROUTES)
        failed += sample.value if ours and labels["code"] >= "400" else 0.0

    def phase(name: str) -> Duration:
        count, seconds = (values.get((f"resnet_phase_seconds_{part}", name), 0.0) for part in ("count", "sum"))
        return Duration(count=int(count), ns=round(seconds * 1e9))

    parts = {"queue": phase("queue"), "compute_input": phase("decode"), "compute_infer": phase("model")}
    images = int(values.get(("resnet_images_total", ""), 0))
    return VersionStatistics(
        name=name,
        version=version,
        inference_count=images,
        execution_count=round(values.get(("resnet_passes_total", ""), 0.0)),
        inference_stats=Durations(
            success=Duration(count=images, ns=sum(part.ns for part in parts.values())),
            fail=Duration(count=int(failed), ns=0),
            compute_output=Duration(count=images, ns=0),
            **parts,
        ),
    )
