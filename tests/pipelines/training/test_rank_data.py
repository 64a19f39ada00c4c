"""The batches of a rank are its part of the global batches, wherever the run begins."""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData
from tests.pipelines.training.digits_run import CPU, STEPS, small


def task(data: tuple[RunData, WorkerData], rank: int = 0, world_size: int = 1, **changes: Any) -> RankData:
    return RankData(small(Path("/unused"), **changes), data[1], rank, world_size, CPU)


def test_ranks_together_have_the_batches_of_one_and_a_resume_the_rest(data: tuple[RunData, WorkerData]) -> None:
    shared: Any = {"scaling": {"workers": "1:4"}}
    alone = task(data, **shared)
    whole = [batch.ids.tolist() for batch in alone.training(1, 0)]
    parts = [[batch.ids.tolist() for batch in task(data, rank, 4, **shared).training(1, 0)] for rank in range(4)]
    assert [list(chain.from_iterable(own)) for own in zip(*parts, strict=True)] == whole
    assert [batch.ids.tolist() for batch in alone.training(1, 5)] == whole[5:]
    assert (alone.total, alone.local) == (STEPS, 64)
    assert {len(ids) for own in parts for ids in own} == {16}


@pytest.mark.parametrize("step", [0, 3, 21])
def test_the_images_of_a_step_can_be_named(data: tuple[RunData, WorkerData], step: int) -> None:
    alone = task(data)
    batch = list(alone.training(0, 0))[step]
    assert alone.ids(0, step) == batch.ids.tolist()


@pytest.mark.parametrize("split", ["train", "val"])
def test_evaluation_counts_every_image_once_over_all_ranks(data: tuple[RunData, WorkerData], split: Any) -> None:
    ranks = [task(data, rank, 3) for rank in range(3)]
    ids = [place for rank in ranks for batch in rank.evaluation(split) for place in batch.ids.tolist()]
    assert ids == list(range(getattr(data[1], split).examples))
    images = np.concatenate([batch.images for batch in task(data).evaluation(split)])
    np.testing.assert_array_equal(images, task(data).split(split).images)


def test_tensors_are_normalised_by_the_mean_and_std_of_the_data(data: tuple[RunData, WorkerData]) -> None:
    alone, (mean, std) = task(data), (data[1].pixels[name] for name in ("mean", "std"))
    batch = next(iter(alone.evaluation()))
    pixels, labels = alone.tensors(batch)
    expected = (batch.images.transpose(0, 3, 1, 2) - mean) / std
    torch.testing.assert_close(pixels, torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
    assert labels.tolist() == batch.labels.tolist()
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_crops_that_the_device_makes_are_those_of_the_host(data: tuple[RunData, WorkerData]) -> None:
    """On a GPU that has room for the set; here the device is the CPU, and the bits are the same."""
    changes: Any = {"recipe": {"images": standard_images() | {"border": "mean", "turns": True}}}
    host, device = task(data, **changes), task(data, **changes)
    device.crops_on_device = True
    for ours, theirs in zip(device.training(2, 3), host.training(2, 3), strict=True):
        assert ours.ids.tolist() == theirs.ids.tolist()
        assert ours.replaced == theirs.replaced == 0
        for made, expected in zip(device.tensors(ours), host.tensors(theirs), strict=True):
            assert torch.equal(made, expected)


def standard_images() -> dict[str, Any]:
    """Settings of the digits' images."""
    return small(Path("/unused")).recipe.images.model_dump()
