"""The command that will run on a lent GPU runs here on tiny shapes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.training import gpu

SCRIPT = Path(gpu.__file__)


@pytest.mark.slow
def test_the_command_runs_whole_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--smoke", "--device", "cpu", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer == json.loads(out.read_text())
    ours = answer["imagenet"]["ours"]
    assert ours["images_per_second"]["least"] <= ours["images_per_second"]["median"]
    assert ours["of_torchvision_references"]["median"] > 0
    assert answer["imagenet"]["engine_default"]["of_torchvision_references"]["median"] > 0
    assert answer["serving"]["precision"] in ("float32", "bfloat16")
    for clients in ("1_clients", "3_clients"):
        assert answer["serving"][clients]["p50_ms"] <= answer["serving"][clients]["p99_ms"]
    assert answer["serving"]["prediction"]["images_per_second"] > 0
    assert {name: lane["loss_is_finite"] for name, lane in answer["cifar"].items()} == {
        f"resnet8_{name}": True
        for name in ("engine_default", "1_lane", "2_lanes", "1_lane_compiled", "2_lanes_compiled")
    }
    assert not any(lane["captured"] for lane in answer["cifar"].values()), "there are no CUDA graphs on a CPU"


def test_a_part_that_fails_is_named_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.attempt(lambda: {"a": 1 / 0}) == {"error": "ZeroDivisionError: division by zero"}
    assert gpu.main(["--smoke", "--device", "cpu", "--minutes", "0"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["cifar"] == {"skipped": "no time left"}


def test_the_share_of_the_ceiling_is_arithmetic() -> None:
    ours = {"images_per_second": gpu.spread([1000.0, 2000.0, 3000.0])}
    result = {"matmul": {"tflops": {"median": 500.0}}, "imagenet": {"ours": ours, "flop_an_image": 25_000_000_000}}
    gpu.shares(result)
    assert result["imagenet"]["ours"]["of_matmul"] == 0.1  # pyright: ignore[reportIndexIssue]
