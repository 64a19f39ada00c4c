"""Private names of Ray: all are there in the versions that are pinned, and none is needed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster import ray_internals
from serve.versions import rollout

ROOT = Path(__file__).resolve().parents[3]


def test_no_private_name_is_missing() -> None:
    """A new version of Ray that lacks one is told here, by name; the fallbacks are used meanwhile."""
    assert ray_internals.missing_ray_names() == []
    assert rollout.serve_internals_missing() == []


def test_a_name_that_is_gone_is_told_and_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ray_local: Any
) -> None:
    monkeypatch.setitem(ray_internals.PRIVATE_NAMES, "ray.nothing.of_the_kind", "a test")
    assert ray_internals.missing_ray_names() == ["ray.nothing.of_the_kind"]
    monkeypatch.setenv(ray_internals.WITHOUT, "1")
    ray_internals.put("key", b"1")
    ray_internals.put("key", b"2", overwrite=False)
    assert ray_internals.get("key") == b"1"
    ray_internals.put("key", b"3")
    assert ray_internals.get("key") == b"3"
    assert "key" in ray_internals.keys_of("ke")
    assert ray_internals.keys_of("kex") == []
    ray_internals.delete("key")
    assert ray_internals.get("key") is None
    assert "postings go through an actor" in caplog.text


@pytest.mark.slow
def test_all_trains_and_sweeps_without_a_private_name(tmp_path: Path) -> None:
    """A training and a sweep of two networks with every fallback forced, each on a Ray of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {ray_internals.WITHOUT: "1", "RESNET_HOME": str(tmp_path / "home")}

    def job(name: str, *words: str) -> dict[str, Any]:
        command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *words, "--storage", str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    trained = job("train_imagenet", "cifar10-resnet8", "--recipe.epochs", "2", "--scaling.workers", "2")
    assert trained["steps"] == 44
    swept = job("sweep_paper", "figure1", "--networks", "cifar10-plain8", "cifar10-resnet8", "--seeds", "0",
                "--recipe.epochs", "1")  # fmt: skip
    assert [run["steps"] for run in swept["runs"]] == [22, 22]
    assert swept["failed"] == {}
