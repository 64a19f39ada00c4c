"""Shards of small photographs that the tests of this folder share."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source


def photograph(rng: np.random.Generator) -> bytes:
    """A smooth random picture of random size, as JPEG."""
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    size = (int(rng.integers(40, 90)), int(rng.integers(40, 90)))
    data = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(data, "JPEG", quality=90)
    return data.getvalue()


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    """150 training and 37 validation images of 3 classes, in row groups of 16."""
    source, out = tmp_path_factory.mktemp("folders"), tmp_path_factory.mktemp("out") / "shards"
    rng = np.random.default_rng(0)
    for split, count in (("train", 150), ("val", 37)):
        for i in range(count):
            folder = source / split / f"class{i % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.JPEG").write_bytes(photograph(rng))
    write_shards(Source(path=str(source)), str(out), row_group_size=16, workers=0)
    return str(out)


@pytest.fixture
def copy(shards: str, tmp_path: Path) -> Path:
    """Shards that a test may damage."""
    return Path(shutil.copytree(shards, tmp_path / "copy"))
