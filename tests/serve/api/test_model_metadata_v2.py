"""The counters of a version, over several replicas, as Triton's clients read them."""

from serve.api.model_metadata_v2 import version_statistics
from serve.metrics import Metrics


def replica(name: str, version: str, images: int, failed: int) -> Metrics:
    """A replica that answered images in passes of two, each image 1 ms decoded, 2 ms queued and 3 ms computed."""
    metrics = Metrics({"model": "resnet", "version": version, "replica": name})
    for _ in range(images):
        for phase, seconds in (("decode", 0.001), ("queue", 0.002), ("model", 0.003)):
            metrics.phases[phase].observe(seconds)
        metrics.passes.inc(1 / 2)
        metrics.images.inc()
    for path, code, count in (
        ("/v1/predict", "400", failed),
        ("/v1/predict", "200", images),
        ("/v2/models/{name}/infer", "503", failed),
        ("/v1/model", "401", 9),  # runs no network
    ):
        metrics.requests.labels(path, code).inc(count)
    return metrics


def test_replicas_are_summed_and_other_versions_left_out():
    replicas = [replica("a", "3", 4, 1), replica("b", "3", 6, 2), replica("b", "4", 100, 50)]
    found = version_statistics([each.families() for each in replicas], "resnet", "3")
    assert (found.inference_count, found.execution_count) == (10, 5)
    told = found.inference_stats
    assert (told.success.count, told.success.ns) == (10, 60_000_000)
    assert told.fail.count == 2 * (1 + 2)
    assert [part.ns for part in (told.compute_input, told.queue, told.compute_infer)] == [10**7, 2 * 10**7, 3 * 10**7]
    none = version_statistics([each.families() for each in replicas], "resnet", "5")
    assert (none.inference_count, none.execution_count, none.inference_stats.success.ns) == (0, 0, 0)
