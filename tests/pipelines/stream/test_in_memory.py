"""Sets that fit into memory: decoded once, the same batches for any number of workers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.shards import row_groups
from pipelines.stream import in_memory
from pipelines.stream.example_order import Order
from resnet.images.crops import evaluation_crops
from resnet.recipes.named import recipe


@pytest.mark.parametrize("small", [0, in_memory.SMALL], ids=["in tasks", "in place"])
def test_a_resident_set_is_the_decoded_split(
    shards: str, small: int, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(in_memory, "SMALL", small)
    if not small:
        request.getfixturevalue("ray_local")
    _, split = row_groups.open_split(shards, "val")
    found = in_memory.load_resident(split, 32, 2**20)
    rows = [row for g in range(len(split.rows)) for row in split.read(g)["image"]]
    np.testing.assert_array_equal(found.images, [evaluation_crops.center_crop(data, 32, 32) for data in rows])
    assert found.labels.tolist() == [label for g in range(len(split.rows)) for label in split.read(g)["label"]]
    with pytest.raises(ValueError, match=r"data\.memory_limit must be at least 1 MiB"):
        in_memory.load_resident(split, 32, 1000)


def test_a_resident_set_names_a_shard_that_cannot_be_read(
    ray_local: Any, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = row_groups.open_split(str(copy), "train")[1].files[0]
    (copy / name).unlink()
    monkeypatch.setattr(in_memory, "SMALL", 0)
    with pytest.raises(row_groups.UnreadableShard, match=f"shard {name} of .* cannot be read") as caught:
        in_memory.load_resident(row_groups.open_split(str(copy), "train")[1], 32, 2**20)
    assert "\n" not in str(caught.value)


def test_resident_batches_are_the_same_for_any_number_of_workers() -> None:
    images = recipe("cifar10-resnet20").images
    rng = np.random.default_rng(0)
    resident = in_memory.Resident(rng.integers(0, 256, (70, 32, 32, 3), dtype=np.uint8), np.arange(70))
    order = Order((16, 16, 16, 16, 6), 16, 2, seed=1)
    whole = list(in_memory.resident_batches(resident, order, images, 4, 0, 0, 1))
    ranks = [list(in_memory.resident_batches(resident, order, images, 4, 0, rank, 4)) for rank in range(4)]
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(np.concatenate([rank[step].images for rank in ranks]), batch.images)
        np.testing.assert_array_equal(batch.labels, batch.ids)
    later = list(in_memory.resident_batches(resident, order, images, 4, 2, 0, 1))
    np.testing.assert_array_equal(later[0].images, whole[2].images)


def test_resident_images_are_turned_alike_for_any_number_of_workers() -> None:
    """By quarters, which differ from epoch to epoch; without turns the same crops stand upright."""
    plain = recipe("cifar10-resnet20").images
    policy, rng = plain.model_copy(update={"turns": True}), np.random.default_rng(0)
    resident = in_memory.Resident(rng.integers(0, 256, (64, 32, 32, 3), dtype=np.uint8), np.arange(64))
    order = Order((16, 16, 16, 16), 16, 2, seed=1)

    def epoch(images: Any, number: int, world_size: int) -> np.ndarray:
        """All crops of an epoch, by their images."""
        found = np.empty((64, 32, 32, 3), np.uint8)
        for rank in range(world_size):
            for batch in in_memory.resident_batches(resident, order, images, number, 0, rank, world_size):
                found[batch.ids] = batch.images
        return found

    turned, upright = epoch(policy, 3, 1), epoch(plain, 3, 1)
    for world_size in (2, 4):
        np.testing.assert_array_equal(epoch(policy, 3, world_size), turned)
    quarters = np.random.default_rng((1, 3, 4)).integers(0, 4, 64)
    assert set(quarters.tolist()) == {0, 1, 2, 3}
    for image, straight, quarter in zip(turned, upright, quarters.tolist(), strict=True):
        np.testing.assert_array_equal(image, np.rot90(straight, quarter))
    assert (quarters != np.random.default_rng((1, 4, 4)).integers(0, 4, 64)).any()
    other, straight = epoch(policy, 4, 1), epoch(plain, 4, 1)
    again = np.stack([np.rot90(image, quarter) for image, quarter in zip(straight, quarters.tolist(), strict=True)])
    assert (other != again).any(), "another epoch, other turns"


def test_the_border_of_resident_batches_has_the_colour_that_is_asked_for() -> None:
    policy = recipe("cifar10-resnet20").images
    mean = policy.model_copy(update={"border": "mean"})
    resident = in_memory.Resident(np.full((64, 32, 32, 3), 255, np.uint8), np.arange(64))
    order = Order((16, 16, 16, 16), 16, 2, seed=1)
    with pytest.raises(ValueError, match="border mean needs a colour"):
        next(in_memory.resident_batches(resident, order, mean, 0, 0, 0, 1))
    color = np.array([120, 121, 110], np.uint8)
    black = next(in_memory.resident_batches(resident, order, policy, 0, 0, 0, 1)).images
    filled = next(in_memory.resident_batches(resident, order, mean, 0, 0, 0, 1, color)).images
    np.testing.assert_array_equal(filled, np.where(black == 0, color, black))
    assert (black == 0).any()


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_evaluation_takes_each_image_once_in_batches_of_at_most_so_many(world_size: int) -> None:
    resident = in_memory.Resident(np.arange(50 * 12, dtype=np.uint16).reshape(50, 2, 2, 3), np.arange(50) % 7)
    ranks = [list(in_memory.resident_evaluation(resident, 6, rank, world_size)) for rank in range(world_size)]
    batches = [batch for rank in ranks for batch in rank]
    assert max(len(batch.labels) for batch in batches) == 6
    ids = np.concatenate([batch.ids for batch in batches])
    assert ids.tolist() == list(range(50))
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), resident.images)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), resident.labels)


def test_crops_differ_between_epochs_and_without_flips_none_is_mirrored() -> None:
    """A ramp from left to right rises in every crop that is not mirrored, within the padding's zeros."""
    policy = recipe("cifar10-resnet20").images
    ramp = np.broadcast_to(np.arange(1, 33, dtype=np.uint8)[None, None, :, None], (32, 32, 32, 3)).copy()
    resident, order = in_memory.Resident(ramp, np.arange(32)), Order((16, 16), 16, 2, seed=1)

    def epoch(number: int, flip: bool) -> np.ndarray:
        images = policy.model_copy(update={"flip": flip})
        found = [batch.images for batch in in_memory.resident_batches(resident, order, images, number, 0, 0, 1)]
        return np.concatenate(found)[:, 16, 8:24, 0].astype(int)

    assert (np.diff(epoch(0, False)) == 1).all()
    assert set(np.diff(epoch(0, True)).ravel().tolist()) == {-1, 1}
    assert (epoch(0, True) != epoch(1, True)).any()
