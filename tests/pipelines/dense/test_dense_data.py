import numpy as np
import pytest

from pipelines.dense.dense_data import open_dense, sampled_pixels
from resnet.images.decode import decode
from tests.pipelines.dense.small_sets import small_run


def test_both_splits_and_their_fingerprint(shards, tmp_path):
    source = open_dense(small_run(shards, tmp_path))
    assert (source.train.examples, source.val.examples) == (12, 4)
    assert source.tags == {"data": str(shards), "data_sha256": source.sha256}
    assert source.dataset.profile == {"num_rows": 12, "train": 12, "val": 4, "classes": 2}


def test_pixels_are_those_of_the_images(boxed, tmp_path):
    train = open_dense(small_run(boxed, tmp_path)).train
    pixels = np.concatenate([decode(data).reshape(-1, 3) for data in train.read(0, ("image",))["image"]])
    found = sampled_pixels(train)
    assert found["mean"] == pytest.approx(pixels.mean(0), rel=1e-5)
    assert found["std"] == pytest.approx(pixels.std(0), rel=1e-5)


def test_shards_of_another_task_are_refused(boxed, masked, tmp_path):
    detector, segmenter = small_run(boxed, tmp_path), small_run(masked, tmp_path)
    mixed = detector.model_copy(update={"data": segmenter.data})
    with pytest.raises(ValueError, match=f"must be shards with boxes for detection, {masked} has masks"):
        open_dense(mixed)
    mixed = segmenter.model_copy(update={"data": detector.data})
    with pytest.raises(ValueError, match=f"must be shards with masks for segmentation, {boxed} has boxes"):
        open_dense(mixed)


def test_a_batch_larger_than_the_set_is_refused(boxed, tmp_path):
    run = small_run(boxed, tmp_path)
    recipe = run.recipe.model_copy(update={"optim": run.recipe.optim.model_copy(update={"batch_size": 16})})
    with pytest.raises(ValueError, match="at most the number of training images, 12, got 16"):
        open_dense(run.model_copy(update={"recipe": recipe}))
