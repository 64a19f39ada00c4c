import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "data" / "ingest.py"


def ingest(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=500, env=os.environ.copy())


def test_help_teaches() -> None:
    done = ingest("--help")
    assert done.returncode == 0
    for word in ("make bench-peers", "--quick", "--images", "CPU seconds an image", "re-encoded"):
        assert word in done.stdout


def test_without_images_it_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = ingest("--images", tmp_path / "empty", "--data", tmp_path / "data")
    assert done.returncode == 2
    assert "--images must be a folder of class folders" in done.stderr
    assert done.stdout == ""


def test_unknown_contender_is_refused(tmp_path: Path) -> None:
    done = ingest("--only", "nobody", "--data", tmp_path)
    assert done.returncode == 2
    assert "nobody" in done.stderr


@pytest.mark.slow
def test_quick_run_of_the_bare_loop_and_torchvision(real_images: Path, tmp_path: Path) -> None:
    contenders = ["torchvision-decode", "bare-originals"]
    images = tmp_path / "images"  # a few are enough
    for path in sorted((real_images / "imagenet-sample").glob("*/*"))[:40]:
        (images / path.parent.name).mkdir(parents=True, exist_ok=True)
        (images / path.parent.name / path.name).symlink_to(path)
    given = ("--images", images, "--data", tmp_path / "data", "--repeat", 8, "--cores", 1)
    done = ingest("--quick", *given, "--only", *contenders)
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.strip().splitlines()[-1])
    assert last["over_dali"] is None
    assert last["of_bare_loop"] is None
    assert [row["contender"] for row in last["rows"]] == contenders
    assert all(row["rate"]["median"] > 0 and row["cpu_ms"]["median"] > 0 for row in last["rows"])
    assert last["grey_levels_from_pillow"]["originals"] == pytest.approx(0.2, abs=0.3)
