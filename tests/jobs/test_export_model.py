"""jobs/export_model.py: images from shards, folders and digits; mistakes in one sentence."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jobs import export_model
from resnet.image_class import ImageClass
from resnet.networks.resnet import build
from resnet.recipes.named import recipe
from resnet.training.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch's exporter
def test_the_job_writes_a_checkpoint_with_what_was_asked_for(tmp_path: Path):
    paper, classes = recipe("cifar10-resnet8"), tuple(ImageClass(id=i, wnid=str(i), name=str(i)) for i in range(10))
    pixels = {"mean": torch.full((3, 1, 1), 120.0), "std": torch.full((3, 1, 1), 60.0)}
    progress = Progress(step=1, total_steps=1, examples=1, classes=classes)
    run = {"recipe": paper.model_dump(mode="json"), "seed": 0}
    save_checkpoint(tmp_path / "best", Checkpoint(build(paper.network, 10).state_dict(), {}, pixels, run, progress))
    words = [str(tmp_path / "best"), "--out", str(tmp_path / "out"), "--count", "20", "--formats", "safetensors", "pt2"]
    outcome = export_model.job(words)
    assert outcome.images == 20
    assert set(outcome.differences) == {"safetensors", "pt2"}
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"model.safetensors", "model.pt2", "export.json"}
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert load_checkpoint(tmp_path / "out").recipe == paper
    assert list(tmp_path.glob("*.part-*")) == []


def test_mistakes_are_one_sentence(tmp_path: Path):
    with pytest.raises(ValueError, match="MODEL must come first"):
        export_model.job(["--out", str(tmp_path / "new")])
    with pytest.raises(ValueError, match="out must not exist yet"):
        export_model.job(["/nowhere", "--out", str(tmp_path)])
    done = subprocess.run(
        [sys.executable, ROOT / "jobs" / "export_model.py", "/nowhere", "--out", tmp_path / "new"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
