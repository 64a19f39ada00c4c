"""The site builds without a warning, and the front page stays short."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_front_page_is_short_and_its_pictures_are_small() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    pictures = list((ROOT / "docs" / "pictures").glob("*.png"))
    assert pictures
    assert all(path.stat().st_size < 300_000 for path in pictures)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("mkdocs"), reason="mkdocs is not installed: an older .venv")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("index", "tutorial", "decisions/index", "reference/resnet"):
        assert (tmp_path / f"{page}.html").exists(), page
