"""Gauges of trainings and sweeps, as Ray's own endpoint for Prometheus gives them."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.progress.status import Status
from pipelines.progress.training_metrics import GAUGES, SWEEP_GAUGES, export_metrics, readings

ROOT = Path(__file__).resolve().parents[3]

STATUS = Status(
    run="r",
    phase="training",
    step=20,
    total=100,
    epoch=2,
    epochs=10,
    loss=0.5,
    error=12.5,
    images_per_second=99,
    seconds_left=8,
    step_seconds=0.25,
    data_wait=0.125,
    loader={"ready_batches": 1.5, "decode_seconds": 0.001},
    saved="step-00000016",
    machine={},
    rows=(
        {"top1_error": 30.0, "replaced_images": 2},
        {"top1_error": None, "replaced_images": 1},
    ),
)


def test_every_gauge_has_its_reading() -> None:
    found = readings(STATUS)
    assert set(found) == set(GAUGES)
    assert found["resnet_training_error_percent"] == 12.5
    assert found["resnet_training_saved_step"] == 16
    assert found["resnet_training_data_wait_fraction"] == 0.125
    assert found["resnet_training_step_seconds"] == 0.25
    assert found["resnet_training_loader_ready_batches"] == 1.5
    assert found["resnet_training_top1_error_percent"] == 30.0, "of the last epoch that was evaluated"
    assert found["resnet_training_replaced_images_total"] == 3


def test_what_is_not_known_yet_is_no_reading() -> None:
    unknown = {"step_seconds": None, "data_wait": None, "loader": {}, "saved": None, "rows": ()}
    found = readings(STATUS.model_copy(update=unknown | {"loss": math.nan, "error": math.nan}))
    assert set(GAUGES) - set(found) == {
        "resnet_training_step_seconds",
        "resnet_training_saved_step",
        "resnet_training_loader_ready_batches",
        "resnet_training_loader_decode_seconds",
        "resnet_training_loss",
        "resnet_training_error_percent",
        "resnet_training_data_wait_fraction",
        "resnet_training_top1_error_percent",
        "resnet_training_replaced_images_total",
    }


def test_ray_takes_the_readings(ray_local: Any) -> None:
    import ray

    @ray.remote(num_cpus=0)
    def worker() -> int:
        export_metrics(STATUS)
        export_metrics(STATUS)
        return len(readings(STATUS))

    assert ray.get(worker.remote()) == len(GAUGES)


# A Ray of its own: that of the other tests exports nothing, as every private one. Its driver sets all gauges, and a
# training of the digits its own; the last value of each that the node's metrics port gave is printed.
PROGRAM = """
import json, sys, threading, urllib.request
import ray
from prometheus_client.parser import text_string_to_metric_families
from pipelines.cluster import private_ray
from pipelines.progress import training_metrics
from pipelines.run import Run, Scaling, standard
from pipelines.training.fit import fit
from tests.pipelines.progress.test_training_metrics import STATUS

if __name__ == "__main__":
    private_ray.SPARING |= {"RAY_enable_metrics_collection": "1", "RAY_metrics_report_interval_ms": "1000"}
    private_ray.start_private(num_cpus=2, num_gpus=0, object_store_memory=2**28)
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    seen, end = {}, threading.Event()

    def scrape():
        while not end.wait(0.5):
            text = urllib.request.urlopen(address, timeout=30).read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name.startswith("ray_resnet_"):
                        labels = [sample.labels.get(name, "") for name in ("run", "sweep", "state")]
                        seen["|".join([sample.name, *labels])] = sample.value

    thread = threading.Thread(target=scrape)
    thread.start()
    training_metrics.export_metrics(STATUS)
    training_metrics.export_sweep("s", [("running", 2), ("failed", 0)], 7.5)
    run = standard("cifar10-resnet8", data_is_given=False)
    scaling = Scaling(workers=1, threads=1)
    recipe = run.recipe.model_copy(update={"epochs": 4})
    fields = {"recipe": recipe, "scaling": scaling, "storage": sys.argv[1], "promote": False}
    run = Run(**(run.model_dump() | fields))
    outcome = fit(run, show=False)
    end.wait(3)
    end.set()
    thread.join()
    print(json.dumps({"seen": seen, "steps": outcome.steps, "error": outcome.top1_error}))
"""


@pytest.mark.slow
def test_prometheus_gets_the_values(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "runs")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "RESNET_RAY"))}
    environment |= {"PYTHONPATH": str(ROOT), "RESNET_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    seen: dict[str, float] = found["seen"]
    assert {name: seen[f"ray_{name}|r||"] for name in GAUGES} == pytest.approx(readings(STATUS))
    trials, best = SWEEP_GAUGES
    assert (seen[f"ray_{trials}||s|running"], seen[f"ray_{trials}||s|failed"], seen[f"ray_{best}||s|"]) == (2, 0, 7.5)
    mine = {key.split("|")[0].removeprefix("ray_resnet_training_"): v for key, v in seen.items() if "|r|" not in key}
    assert mine["steps_total"] == found["steps"] == 4 * (1437 // 64)
    assert 0 < mine["step"] <= found["steps"]
    assert mine["images_per_second"] == pytest.approx(64 / mine["step_seconds"], rel=1e-3)
    assert 0 < mine["loss"] < 5
    assert 0 <= mine["data_wait_fraction"] < 1
    assert not any("loader" in name for name in mine), "a set in memory has no loader"
