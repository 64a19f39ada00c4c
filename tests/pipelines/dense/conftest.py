"""Small sets with boxes and with masks, and a process group of one rank, that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from tests.pipelines.dense.small_sets import mask_set, voc_set


@pytest.fixture(scope="session")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of 12 training and 4 validation images with boxes of two classes."""
    root = tmp_path_factory.mktemp("boxed")
    voc_set(root / "voc", train=12, val=4)
    write_shards(Source(path=str(root / "voc")), str(root / "shards"), workers=0, row_group_size=4)
    return str(root / "shards")


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of 12 training and 4 validation images with masks of two classes."""
    root = tmp_path_factory.mktemp("masked")
    mask_set(root / "folders", train=12, val=4)
    write_shards(Source(path=str(root / "folders")), str(root / "shards"), workers=0, row_group_size=4)
    return str(root / "shards")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone, which trains with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    store = f"file://{tmp_path_factory.mktemp('group')}/store"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
    torch.set_num_threads(threads)


@pytest.fixture(params=["boxes", "masks"])
def shards(request: Any, boxed: str, masked: str) -> Path:
    """Both sets in turn."""
    return Path({"boxes": boxed, "masks": masked}[request.param])
