import pytest

from pipelines.result_settings import settings
from pipelines.setting_tables import ablations, compute, departures, gradients
from resnet.conditions import Conditions
from resnet.norms import LayerNorms
from resnet.recipe import recipe


def conditions(precision="bfloat16", bn_batch=64):
    return Conditions(
        hardware="1 core of the tests", gflops={}, world_size=1, threads=1, precision=precision, bn_batch=bn_batch,
        jpeg_engine="c", versions={},
    )  # fmt: skip


def numbered(found):
    return {setting.rows[0].setting: str(i) for i, setting in enumerate(found, start=1)}


def test_settings_that_differ_in_one_aspect_are_an_ablation(row):
    rows = [
        row("cifar10-resnet20", seed, top1_error=error, conditions=(conditions(precision, bn_batch),))
        for precision, bn_batch, errors in (
            ("bfloat16", 64, (9.0, 9.4)),
            ("float32", 64, (8.9, 9.5)),
            ("float32", 128, (9, 9)),
        )
        for seed, error in enumerate(errors)
    ]
    found = settings(rows)
    table = ablations(found, numbered(found))
    assert table is not None
    aspects = [r[:3] for r in table.rows]
    assert sorted(r[0] for r in aspects) == ["batch norm's group", "precision"], "two that differ in both are none"
    (precision,) = [r for r in table.rows if r[0] == "precision"]
    sign = 1 if precision[1] == "bfloat16" else -1
    assert precision[4:6] == ("ResNet-20", "2")
    assert float(precision[7].split()[0]) == pytest.approx(sign * 0.0, abs=1e-9)
    assert "[" in precision[7]


def test_what_was_not_recorded_is_no_ablation(row):
    found = settings([row("cifar10-resnet20"), row("cifar10-resnet20", conditions=(conditions(),))])
    assert len(found) == 2
    assert ablations(found, numbered(found)) is None


def test_departures_name_the_field_and_both_values(row):
    images = recipe("cifar10-resnet20").images.model_copy(update={"border": "mean"})
    changed = recipe("cifar10-resnet20").model_copy(update={"images": images, "steps": 640})
    found = settings(
        [row("cifar10-resnet20", recipe=changed, steps=640, total=640, conditions=(conditions("float32"),))]
    )
    table = departures(found, numbered(found))
    assert table is not None
    assert list(table.rows) == [("1", "images.border", "black", "mean"), ("1", "steps", "64000", "640")]
    other = settings([row("imagenet-resnet18", recipe=recipe("imagenet-resnet18@90"), protocol="1-crop")])
    table = departures(other, numbered(other))
    assert table is not None
    assert list(table.rows) == [
        ("1", "recipe", "@paper", "@90"),
        ("1", "precision", "the paper's float32", "not recorded"),
    ]
    papers = settings([row("cifar10-resnet110", conditions=(conditions("float32"),))])
    assert departures(papers, numbered(papers)) is None


def test_hours_are_summed_where_they_are_known(row):
    rows = [row("cifar10-resnet20", 0, seconds=7200.0), row("cifar10-resnet20", 1, seconds=3600.0, cpu_seconds=5400.0)]
    found = settings(rows)
    (cells,) = compute(found, numbered(found)).rows
    assert cells[1:5] == ("2", "128,000", "3.0", "1.5 (1 of 2 trainings)")
    (unknown,) = compute(settings([row("cifar10-resnet20")]), numbered(found)).rows
    assert unknown[3:5] == ("-", "not recorded")


def test_gradients_are_a_range_over_seeds(row):
    def norms(step, first, weight):
        layers = {
            "conv1": (first, weight),
            "layer1.0.conv1": (1.0, 1.0),
            "layer3.2.conv2": (0.5, 9.0),
            "fc": (3.0, 1.0),
        }
        return LayerNorms(step=step, loss=2.3, layers=layers)

    rows = [
        row("cifar10-plain56", seed, norms=(norms(0, first, 5.7), norms(100, 1.0, 372.0)))
        for seed, first in ((0, 685.0), (1, 1390.0))
    ]
    (setting,) = settings([*rows, row("cifar10-plain20")])
    table = gradients(setting, "c")
    assert table is not None
    assert table.header == ("network", "seeds", "step 0", "step 100")
    assert list(table.rows) == [("plain-56", "2", "1,370-2,780 (5.7)", "2 (372)")]
    (without,) = settings([row("cifar10-plain20")])
    assert gradients(without, "c") is None
