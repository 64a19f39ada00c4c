"""Metrics of replicas are one text that Prometheus reads, each sample with its replica's labels."""

from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import MEDIA_TYPE, SECONDS, Metrics, exposition


def samples(*replicas: Metrics) -> dict[tuple[str, frozenset], float]:
    """What Prometheus's own parser reads."""
    text = exposition([replica.families() for replica in replicas]).decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families), "a family stands once"
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def labels(replica: str, **more: str) -> frozenset:
    return frozenset({"model": "resnet", "version": "1", "replica": replica, **more}.items())


def test_replicas_stand_side_by_side_in_one_family() -> None:
    one, two = (Metrics({"model": "resnet", "version": "1", "replica": name}) for name in "ab")
    one.requests.labels("/v1/predict", "200").inc(3)
    two.requests.labels("/v1/predict", "200").inc()
    two.images.inc(5)
    found = samples(one, two)
    for replica, requests, images in (("a", 3, 0), ("b", 1, 5)):
        assert found["resnet_requests_total", labels(replica, path="/v1/predict", code="200")] == requests
        assert found["resnet_images_total", labels(replica)] == images
        assert found["resnet_replica_up", labels(replica)] == 1


def test_times_fall_into_buckets_and_each_phase_has_its_own() -> None:
    metrics = Metrics({"replica": "a"})
    for seconds in (0.0005, 0.02, 60.0):
        metrics.phases["model"].observe(seconds)
    found = samples(metrics)

    def bucket(le: str) -> float:
        return found["resnet_phase_seconds_bucket", frozenset({"phase": "model", "le": le, "replica": "a"}.items())]

    assert [bucket(le) for le in ("0.001", "0.01", "0.025", "30.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert found["resnet_phase_seconds_count", frozenset({"phase": "decode", "replica": "a"}.items())] == 0
    assert list(SECONDS) == sorted(SECONDS)


def test_without_replicas_the_text_is_empty_and_reading_changes_nothing() -> None:
    assert exposition([]) == b""
    metrics = Metrics({"replica": "a"})
    metrics.images.inc()
    assert samples(metrics) == samples(metrics)
    assert MEDIA_TYPE.startswith("text/plain")
