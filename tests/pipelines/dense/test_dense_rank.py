import numpy as np

from resnet.dense.targets import Boxes
from tests.pipelines.dense.local_rank import local_rank
from tests.pipelines.dense.small_sets import small_run


def test_an_epoch_has_each_image_once_with_its_own_target(boxed, tmp_path):
    task = local_rank(small_run(boxed, tmp_path))
    assert (task.order.steps_per_epoch, task.total) == (3, 5)
    batches = list(task.training(0, 0))
    assert [len(batch) for batch in batches] == [4, 4, 4]
    for image, target in (example for batch in batches for example in batch):
        left, top, right, bottom = target.boxes[0].astype(int)
        inside = image[top + 2 : bottom - 2, left + 2 : right - 2].mean()
        assert (inside > 200) == (target.labels[0] == 1)  # classes are dark, light
        assert (inside < 50) == (target.labels[0] == 0)
    assert sorted(i for step in range(3) for i in task.ids(0, step)) == list(range(12))


def test_a_resume_inside_an_epoch_goes_on_with_the_same_examples(shards, tmp_path):
    task = local_rank(small_run(shards, tmp_path))
    whole, rest = list(task.training(1, 0)), list(task.training(1, 2))
    assert len(rest) == 1
    for a, b in zip(whole[2], rest[0], strict=True):
        assert np.array_equal(a.image, b.image)
        same = zip(a.target, b.target, strict=True) if isinstance(a.target, Boxes) else [(a.target, b.target)]
        assert all(np.array_equal(x, y) for x, y in same)
