"""The endpoint's metrics in Prometheus form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

MEDIA_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters and histograms of one replica. labels: model, version and replica, on every sample."""

    def __init__(self, labels: dict[str, str]) -> None:
        self.labels = labels
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter("resnet_requests", "Requests answered.", ("path", "code"), registry=r)
        self.latency = Histogram("resnet_request_seconds", "A whole request.", ("path",), registry=r, buckets=SECONDS)
        phases = "A part of one image's way: decode, queue, model."
        phase = Histogram("resnet_phase_seconds", phases, ("phase",), registry=r, buckets=SECONDS)
        self.phases = {name: phase.labels(name) for name in ("decode", "queue", "model")}
        self.batch = Histogram("resnet_batch_images", "Images of one pass.", registry=r, buckets=SIZES)
        self.passes = Counter(
            "resnet_passes", "Passes through the network: each image is its share of one.", registry=r
        )
        self.images = Counter("resnet_images", "Images answered.", registry=r)
        self.in_progress = Gauge("resnet_images_in_progress", "Images that wait or are computed.", registry=r)
        frames = "Frames of cameras that have gone: answered, dropped as stale, late, or refused."
        self.frames = Counter("resnet_stream_frames", frames, ("outcome",), registry=r)
        self.streams = Gauge("resnet_streams", "Cameras that are connected.", registry=r)
        self.up = Gauge("resnet_replica_up", "1 where a replica serves the version, else 0.", registry=r)
        self.up.set(1)

    def families(self) -> list[Metric]:
        """All samples of this replica, with its labels on each."""
        families = list(self.registry.collect())
        for family in families:
            family.samples = [s._replace(labels={**s.labels, **self.labels}) for s in family.samples]
        return families


class _Merged:
    """The families of several replicas, as what prometheus_client prints."""

    def __init__(self, replicas: Iterable[Sequence[Metric]]) -> None:
        self.by_name: dict[str, Metric] = {}
        for family in (family for families in replicas for family in families):
            known = self.by_name.setdefault(family.name, family)
            if known is not family:
                known.samples = [*known.samples, *family.samples]

    def collect(self, *_: Any) -> Iterable[Metric]:
        """The method that generate_latest calls."""
        return self.by_name.values()


def exposition(replicas: Iterable[Sequence[Metric]]) -> bytes:
    """The text that Prometheus scrapes, over all replicas."""
    merged: Any = _Merged(replicas)
    return generate_latest(merged)
