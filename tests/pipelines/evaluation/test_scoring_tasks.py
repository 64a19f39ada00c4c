"""Rows of images come together whole, whatever the order of blocks, and views travel as they were cut."""

import numpy as np
import pytest

from pipelines.cluster.planning.resource_plan import Node
from pipelines.evaluation.scoring_tasks import CHUNK, ScoringJob, _read, _together, _unpack, placing
from pipelines.shards.row_groups import open_split
from resnet.evaluation.error_summary import Ranked
from resnet.evaluation.views import views
from resnet.recipes.named import recipe


def test_workers_leave_cpus_for_reading():
    for cpus in (1.0, 2.0, 4.0, 64.0):
        for gpus in (0.0, 1.0, 8.0):
            where = placing([Node(cpus, gpus)], None, None)
            assert where.gpu == (gpus >= 1)
            assert where.workers * where.cpus + where.cpus_per_task <= cpus
            assert where.cpus_per_task > 0.05
            assert where.threads >= 1
    with pytest.raises(ValueError, match="workers must be at most the cluster's 1 GPUs, got 2"):
        placing([Node(8, 1)], 2, True)
    with pytest.raises(ValueError, match="gpu must be off where no node has one, got 1 x 8 CPUs up"):
        placing([Node(8)], None, True)


def test_workers_fit_on_nodes_not_on_their_sum() -> None:
    """One GPU node beside CPU nodes; ten small nodes."""
    where = placing([Node(64), Node(48, 4)], None, None)
    assert (where.workers, where.cpus, where.threads, where.cpus_per_task) == (4, 0.5, 12, 1.0)
    where = placing([Node(4)] * 10, None, None)
    assert (where.workers, where.cpus, where.threads, where.cpus_per_task) == (10, 3.0, 4, 0.5)
    where = placing([Node(4)] * 10, 2, False)
    assert (where.workers, where.cpus, where.threads) == (2, 3.0, 4)


def test_an_explicit_number_of_workers_shares_the_cpus():
    assert (placing([Node(8, 0)], None, None).workers, placing([Node(8, 2)], None, None).workers) == (2, 2)
    assert placing([Node(8, 2)], 4, False) == placing([Node(8, 0)], 4, None), "GPUs that are not wanted are as none"
    assert placing([Node(8, 0)], 4, None).threads == 2


@pytest.mark.parametrize(
    ("network", "protocol"), [("cifar10-resnet20", "single"), ("imagenet-resnet18", "multi-scale")]
)
def test_views_travel_as_bytes_and_come_back_with_their_shapes(digits, network, protocol):
    split, images = open_split(digits, "val")[1], recipe(network).images
    images = images.model_copy(update={"size": 32}) if protocol == "multi-scale" else images
    blocks = list(_read(split, images, protocol, True, {"group": np.array([1, 0])}))
    assert max(len(block["index"]) for block in blocks) == CHUNK
    rows = {group: split.read(group, ("image", "label", "key")) for group in (0, 1)}
    first = blocks[0]
    assert first["index"].tolist() == list(range(split.rows[0], split.rows[0] + CHUNK)), "places in the split"
    assert first["key"].tolist() == rows[1]["key"][:CHUNK]
    assert first["label"].tolist() == rows[1]["label"][:CHUNK]
    for place in (0, 5):
        found = _unpack(first["pixels"][place], first["shapes"][place])
        expected = views(rows[1]["image"][place], protocol, images)
        assert [view.shape for view in found] == [view.shape for view in expected]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert sum(len(block["index"]) for block in blocks) == split.rows[0] + split.rows[1]
    assert "key" not in next(_read(split, images, protocol, False, {"group": np.array([0])}))


def blocks_of(scores, labels, order, cut):
    """Blocks of rows as the workers give them."""
    ranked = Ranked.of(scores, labels)
    rows = {"index": np.arange(len(labels)), "label": ranked.labels, "top": ranked.top, "score": ranked.scores,
            "of_label": ranked.of_label, "precision": np.full(len(labels), "bfloat16"),
            "key": np.array([f"k{i}" for i in range(len(labels))], object)}  # fmt: skip
    return [{name: rows[name][order[i : i + cut]] for name in rows} for i in range(0, len(order), cut)]


@pytest.fixture(scope="module")
def val(digits):
    return ScoringJob((), "single", open_split(digits, "val")[1], range(10), keys=True)


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_rows_are_put_in_the_order_of_the_data_set_whatever_comes_first(val, cut):
    rng = np.random.default_rng(cut)
    scores, labels = rng.dirichlet(np.ones(10), 360), rng.integers(0, 10, 360)
    found = _together(val, blocks_of(scores, labels, rng.permutation(360), cut), show=False)
    expected = Ranked.of(scores, labels)
    assert all(np.array_equal(getattr(found.ranked, name), array) for name, array in vars(expected).items())
    assert found.keys is not None
    assert found.keys.tolist() == [f"k{i}" for i in range(360)]
    assert (found.precision, found.responses) == ("bfloat16", None)


def test_an_image_that_is_missing_or_comes_twice_is_an_error(val, capsys):
    scores, labels = np.full((360, 10), 0.1), np.zeros(360, int)
    for order, told in (
        (np.arange(359), "counted 359 different images in 359 rows of 360"),
        (np.append(np.arange(360), 5), "counted 360 different images in 361 rows of 360"),
        (np.append(np.arange(359), 5), "counted 359 different images in 360 rows of 360"),
    ):
        with pytest.raises(RuntimeError, match=told):
            _together(val, blocks_of(scores, labels, order, 100), show=False)
    with pytest.raises(RuntimeError, match="counted 0 different images in 0 rows of 360"):
        _together(val, [], show=False)
    _together(val, blocks_of(scores, labels, np.arange(360), 90), show=True)
    assert capsys.readouterr().err.splitlines()[-1].startswith("360 of 360 images, ")
