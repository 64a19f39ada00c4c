"""The data of a run, before anything is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.preparation.prepare import write_shards
from pipelines.preparation.sources import Source
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.run import Run, standard
from pipelines.shards.row_groups import open_split
from pipelines.training.run_data import RunData, WorkerData, class_counts, load_feed, open_source, require_classes
from tests.pipelines.training.digits_run import small


def shards(folder: Path, **counts: dict[str, int]) -> str:
    """Shards of pictures of noise. counts: images of each class, by split."""
    rng = np.random.default_rng(0)
    for split, classes in counts.items():
        for name, count in classes.items():
            place = folder / "source" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(place / f"{split}{i}.png")
    out = str(folder / "shards")
    write_shards(Source(path=str(folder / "source")), out, drawing=Drawing(allow_empty=True), workers=0)
    return out


def weighed(path: str, **recipe: Any) -> Run:
    run = standard("cifar10-resnet8")
    changed = run.recipe.model_dump() | {"optim": run.recipe.optim.model_dump() | {"batch_size": 4}, "bn_batch": None}
    changed |= {"loss": {"class_weights": True}} | recipe
    return Run(**(run.model_dump() | {"recipe": changed, "data": {"path": path}}))


def test_training_images_are_counted_by_class_for_a_loss_that_weighs_them(ray_local: Any, tmp_path: Path) -> None:
    path = shards(tmp_path, train={"cat": 7, "dog": 3}, val={"cat": 2, "dog": 2})
    run = weighed(path)
    source = open_source(run)
    assert load_feed(run, source).class_counts == (7, 3)
    assert load_feed(weighed(path, loss={}), source).class_counts is None
    held = weighed(path).model_copy(update={"data": run.data.model_copy(update={"holdout": 4})})
    parts = open_source(held)
    assert class_counts(parts.train, 2).sum() == 6
    both = class_counts(parts.train, 2) + class_counts(parts.val, 2)
    assert both.tolist() == class_counts(open_split(path, "train")[1], 2).tolist() == [7, 3]


def test_a_given_mean_is_the_recipe_s_in_grey_levels(ray_local: Any, tmp_path: Path) -> None:
    path = shards(tmp_path, train={"cat": 4, "dog": 4}, val={"cat": 1, "dog": 1})
    images = standard("cifar10-resnet8").recipe.images.model_dump()
    images |= {"mean": "given", "pixel_mean": (0.5, 0.25, 0.0), "pixel_std": (0.2, 0.4, 1.0)}
    run = weighed(path, images=images)
    pixels = load_feed(run, open_source(run)).pixels
    np.testing.assert_allclose(pixels["mean"].ravel(), [127.5, 63.75, 0.0])
    np.testing.assert_allclose(pixels["std"].ravel(), [51.0, 102.0, 255.0], rtol=1e-6)


def test_data_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    one = shards(tmp_path / "one", train={"cat": 8}, val={"cat": 2})
    with pytest.raises(ValueError, match="must have training images of two classes at least, all 8 are cat"):
        open_source(weighed(one))
    # What a source of another kind than class folders can hold: a class without training images.
    path = shards(tmp_path / "all", train={"cat": 8, "dog": 8, "cow": 3}, val={"cat": 2, "dog": 4})
    manifest, train = open_split(path, "train")
    turned = RunData(path, manifest, train=open_split(path, "val")[1], val=train)
    with pytest.raises(ValueError, match="of each class of val, class cow has 3 in val and none in train"):
        require_classes(turned)


def test_a_holdout_cuts_the_training_images_in_two(data: tuple[RunData, WorkerData], tmp_path: Path) -> None:
    """The same images as the whole split has, none in both; the cut may lie inside a row group."""
    whole = data[0].train
    source = open_source(small(tmp_path, data={"holdout": 300}))
    assert (source.train.examples, source.val.examples) == (1137, 300)
    assert source.sha256 != data[0].sha256
    keys = [
        [k for g in range(len(s.rows)) for k in s.read(g, ("key",))["key"]] for s in (whole, source.train, source.val)
    ]
    assert keys[1] + keys[2] == keys[0]
    assert whole.parted(128)[1].examples == 128
