"""jobs/export_model.py: images from shards, folders and digits; mistakes in one sentence."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import export_model
from pipelines.sampling import sample
from pipelines.shards import Source, write_shards

ROOT = Path(__file__).resolve().parents[2]


def test_images_come_from_a_folder_from_shards_or_are_digits(tmp_path: Path):
    rng = np.random.default_rng(0)
    for split, name in (("train", "a"), ("val", "a"), ("val", "b")):
        (tmp_path / "photos" / split / name).mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8))
            picture.save(tmp_path / "photos" / split / name / f"{i}.png")
    (tmp_path / "photos" / "train" / "b").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "photos" / "train" / "b" / "0.png")
    files = {path.read_bytes(): str(path) for path in (tmp_path / "photos").rglob("*.png")}
    assert len(files) == 10
    assert {*sample(str(tmp_path / "photos"), 100)} == {*files}
    assert len(sample(str(tmp_path / "photos"), 4)) == 4
    write_shards(Source(path=str(tmp_path / "photos")), str(tmp_path / "shards"), workers=0)
    held_out = {data for data, path in files.items() if "/val/" in path}
    assert {*sample(str(tmp_path / "shards"), 100)} == held_out
    assert {*sample(str(tmp_path / "shards"), 2)} < held_out
    assert len({*sample(None, 50)}) == 50


def test_mistakes_are_one_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match="MODEL must come first"):
        export_model.job(["--out", str(tmp_path / "new")])
    with pytest.raises(ValueError, match="out must not exist yet"):
        export_model.job(["/nowhere", "--out", str(tmp_path)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="images must hold files that end in"):
        sample(str(tmp_path / "empty"), 4)
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "export_model.py", "/nowhere", "--out", tmp_path / "new"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
