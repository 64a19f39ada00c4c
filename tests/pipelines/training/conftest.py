"""A process group of one rank, and the digits, that the tests of this folder share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from pipelines.training.run_data import RunData, WorkerData, load_feed, open_source
from tests.pipelines.training.digits_run import small


@pytest.fixture(scope="module")
def one_rank(ray_local: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone, which trains with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads beyond the free cores spin
    store = f"file://{tmp_path_factory.mktemp('group')}/store"
    distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def data(ray_local: Any) -> tuple[RunData, WorkerData]:
    """The digits, decoded once."""
    run = small(Path("/unused"))
    source = open_source(run)
    return source, load_feed(run, source)
