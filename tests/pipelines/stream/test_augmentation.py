"""A batch of encoded images becomes what the network sees: a pure function of bytes, seed, epoch and place."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from pipelines.shards.row_groups import Split, UnreadableShard, open_split
from pipelines.stream.augmentation import Batch, Encoded, EpochAugmentation, augment, center, shortage
from resnet.images.crops import evaluation_crops
from resnet.images.crops.pca_color import pca_shift
from resnet.recipes.named import recipe
from resnet.recipes.recipe_settings import Images


def test_a_recipe_that_needs_more_pixels_than_the_shards_keep_is_told_so() -> None:
    paper = recipe("imagenet-resnet50-B").images
    assert shortage(None, paper) is None
    assert shortage(480, paper) is None
    note = shortage(256, paper)
    assert note is not None
    assert "up to 480 pixels and the shards keep 256" in note
    half = paper.model_copy(update={"size": 112})
    assert shortage(240, half) is None, "lengths scale with the size"
    common = recipe("imagenet-resnet50-B@90").images
    assert shortage(256, common) is None


JITTER = Images(size=32, policy="scale-jitter", shorter_side=(256, 480), color="pca", eval_shorter_side=256)
PLAIN = Images(size=24, policy="random-resized-crop", area=(0.3, 1), eval_shorter_side=256, mean="per-channel")


def batch_of(split: Split, policy: Images, ids: list[int], threads: int, out: np.ndarray | None = None) -> Batch:
    """What epoch 3 of seed 5 makes of some images."""
    rows = [split.read(group) for group in range(len(split.rows))]
    files = [data for group in rows for data in group["image"]]
    labels = np.array([label for group in rows for label in group["label"]])
    encoded = Encoded([memoryview(files[i]) for i in ids], labels[ids], np.array(ids))
    with ThreadPoolExecutor(threads) as pool:
        return EpochAugmentation(split, policy, 5, 3).start(encoded, pool, out)()


@pytest.fixture(scope="module")
def split(shards: str) -> Split:
    return open_split(shards, "train")[1]


@pytest.mark.parametrize("policy", [JITTER, PLAIN], ids=["jitter and colour", "resized crop"])
def test_each_image_is_augmented_by_its_own_place_whatever_the_threads(split: Split, policy: Images) -> None:
    ids = [7, 149, 0, 33, 34, 35, 36, 37, 38, 39, 40]
    one, four = batch_of(split, policy, ids, 1), batch_of(split, policy, ids[::-1], 4)
    files = [data for group in range(len(split.rows)) for data in split.read(group)["image"]]
    assert (one.images.shape, one.replaced) == ((11, policy.size, policy.size, 3), 0)
    for i, place in enumerate(ids):
        rng = np.random.default_rng((5, 3, place, 2))
        np.testing.assert_array_equal(one.images[i], augment(files[place], policy, rng))
        np.testing.assert_array_equal(one.images[i], four.images[-1 - i])
        if policy.color == "pca":
            assert one.shift is not None
            np.testing.assert_array_equal(one.shift[i], pca_shift(rng))
    assert (one.shift is None) == (policy.color == "none")


def test_images_are_turned_by_quarters_that_their_places_draw(split: Split) -> None:
    """Exactly, whatever the threads and the batch that an image is in: the turn comes after all other draws of it."""
    policy, ids = PLAIN.model_copy(update={"turns": True}), list(range(48))
    turned, plain = batch_of(split, policy, ids, 1), batch_of(split, PLAIN, ids, 1)
    quarters = []
    for i in ids:
        is_turn = [np.array_equal(turned.images[i], np.rot90(plain.images[i], k)) for k in range(4)]
        assert is_turn.count(True) == 1, "one of four turns, and no pixel is changed"
        quarters.append(is_turn.index(True))
    assert set(quarters) == {0, 1, 2, 3}
    halves = [batch_of(split, policy, part, 4) for part in (ids[::2], ids[1::2])]
    np.testing.assert_array_equal(turned.images[::2], halves[0].images)
    np.testing.assert_array_equal(turned.images[1::2], halves[1].images)
    rng = np.random.default_rng((5, 3, 7, 2))
    files = [data for group in range(len(split.rows)) for data in split.read(group)["image"]]
    augment(files[7], PLAIN, rng)
    assert quarters[7] == int(rng.integers(4))


def test_pixels_go_where_they_are_wanted(split: Split) -> None:
    out = np.zeros((9, 24, 24, 3), np.uint8)
    batch = batch_of(split, PLAIN, [3, 1, 4], 2, out)
    assert np.shares_memory(batch.images, out)
    np.testing.assert_array_equal(out[:3], batch_of(split, PLAIN, [3, 1, 4], 1).images)
    assert not out[3:].any()


def test_an_image_that_cannot_be_decoded_shows_the_next_of_its_row_group(copy: Path) -> None:
    """From the last the first comes next. One row group that holds no image at all is an error."""
    shard = open_split(str(copy), "train")[1].files[0]
    table = pq.read_table(copy / shard)
    images, labels = table["image"].to_pylist(), table["label"].to_pylist()
    for broken in (3, 4, 15):
        images[broken] = b"no image"
    pq.write_table(table.set_column(0, "image", pa.array(images, pa.binary())), copy / shard, row_group_size=16)
    split = open_split(str(copy), "train")[1]
    found = batch_of(split, PLAIN, [3, 4, 15, 2], 2)
    assert found.replaced == 3
    assert found.labels.tolist() == [labels[5], labels[5], labels[0], labels[2]]
    for i, (place, shown) in enumerate([(3, 5), (4, 5), (15, 0), (2, 2)]):
        rng = np.random.default_rng((5, 3, place, 2))
        np.testing.assert_array_equal(found.images[i], augment(images[shown], PLAIN, rng))
    none = pa.array([b"no image"] * len(images), pa.binary())
    pq.write_table(table.set_column(0, "image", none), copy / shard, row_group_size=16)
    with pytest.raises(UnreadableShard, match="a row group of 16 rows has no image that can be decoded"):
        batch_of(open_split(str(copy), "train")[1], PLAIN, [3], 1)


def test_the_centre_is_that_of_evaluation(split: Split) -> None:
    (data, *_) = split.read(0)["image"]
    larger = JITTER.model_copy(update={"eval_interpolation": "bicubic"})
    np.testing.assert_array_equal(center(data, JITTER), evaluation_crops.center_crop(data, 32, 37))
    assert (center(data, larger) != center(data, JITTER)).any()
