import json

import numpy as np
import pytest

from resnet.conditions import Conditions
from resnet.final_test import FinalTest, packed, unpacked
from resnet.recipe import Recipe, recipe
from resnet.results import CurveRow, DataSet, Evaluated, Response, ResultRow, read_results, write_results


def row(network="cifar10-resnet20", seed=0, **changes):
    paper = recipe(network)
    fields = {
        "recipe": paper,
        "seed": seed,
        "engine": "ray",
        "commit": "0" * 40,
        "hardware": "none: a row of the tests",
        "data": DataSet(name="cifar10", sha256="d", train=50_000, val=10_000),
        "steps": paper.steps,
        "total": paper.steps,
        "protocol": "single",
        "top1_error": 50.0,
        "top5_error": 5.0,
        "train_error": 40.0,
        "curve": (CurveRow(390, 0.1, 2.0, 70.0, 60.0), CurveRow(780, 0.1, 1.5, 50.0, None)),
    }
    return ResultRow(**(fields | changes))


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = (
        row(evaluations=(Evaluated(protocol="10-crop", top1_error=1, top5_error=0, examples=9, precision="float32"),)),
        row(seed=1, responses=(Response(layer="conv1", std=0.5),), note="two lines\nof note"),
        row("cifar10-plain20"),
    )
    paths = write_results(tmp_path, rows)
    assert len(set(paths)) == 3
    assert sorted(read_results(tmp_path), key=str) == sorted(rows, key=str)
    write_results(tmp_path, [rows[0].model_copy(update={"top1_error": 49.0})])
    assert len(read_results(tmp_path)) == 3  # the same training again: its file is replaced


def test_what_a_row_gained_after_its_training_outlives_another_export(tmp_path):
    gained = {
        "evaluations": (Evaluated(protocol="10-crop", top1_error=1, top5_error=0, examples=9, precision="float32"),),
        "responses": (Response(layer="conv1", std=0.5),),
    }
    write_results(tmp_path, [row(**gained)])
    write_results(tmp_path, [row()])
    assert read_results(tmp_path) == (row(**gained),)
    write_results(tmp_path, [row(top1_error=49.0)])  # another training: nothing stays
    assert read_results(tmp_path) == (row(top1_error=49.0),)


def test_a_file_may_hold_several_rows_and_an_epoch_takes_a_line(tmp_path):
    (path,) = write_results(tmp_path, [row()])
    assert "\n    [390, 0.1, 2.0, 70.0, 60.0],\n    [780, 0.1, 1.5, 50.0, null]\n" in path.read_text()
    several = [json.loads(row(seed=seed).model_dump_json()) for seed in (3, 4)]
    (tmp_path / "sweep.json").write_text(json.dumps(several))
    assert sorted(found.seed for found in read_results(tmp_path)) == [0, 3, 4]


def test_what_is_no_row_is_named(tmp_path):
    with pytest.raises(ValueError, match="results must be a folder"):
        read_results(tmp_path / "nothing")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ValueError, match=r"x\.json"):
        read_results(tmp_path)
    (tmp_path / "x.json").write_text(row().model_dump_json().replace('"seed"', '"sead"'))
    with pytest.raises(ValueError, match=r"x\.json: sead is no field|x\.json: seed"):
        read_results(tmp_path)
    with pytest.raises(ValueError, match="steps must be total, 64000, in a finished training, got 100"):
        row(steps=100)


def test_only_the_papers_own_recipe_on_its_data_is_the_papers_setting():
    assert row().is_papers_setting
    assert row("cifar10-resnet110").is_papers_setting
    tenth = recipe("cifar10-resnet20").model_copy(update={"steps": 6400})
    assert not row(recipe=tenth, steps=6400, total=6400).is_papers_schedule
    lower = Recipe(**{**recipe("cifar10-resnet20").model_dump(), "optim": {"lr": 0.05, "batch_size": 128}})
    assert not row(recipe=lower).is_papers_schedule
    digits = row(data=DataSet(name="digits", sha256="d", train=1437, val=360))
    assert digits.is_papers_schedule
    assert not digits.is_papers_data
    assert not digits.is_papers_setting
    assert not row(data=DataSet(name="cifar100", sha256="d", train=50_000, val=10_000)).is_papers_data
    assert not row(data=DataSet(name="cifar10", sha256="d", val=10_000)).is_papers_data


def test_rows_share_a_setting_if_they_differ_in_network_and_seed_only():
    same = {row().setting, row(seed=5).setting, row("cifar10-plain56").setting, row("cifar10-resnet110").setting}
    assert len(same) == 1
    others = {
        row(engine="single").setting,
        row(data=DataSet(name="cifar10", sha256="e", train=50_000, val=10_000)).setting,
        row(recipe=recipe("cifar10-resnet20").model_copy(update={"steps": 10}), steps=10, total=10).setting,
        row("imagenet-resnet18", protocol="1-crop").setting,
    }
    assert len(others | same) == 5
    assert len({found.file_name for found in (row(), row(seed=5), row("cifar10-plain56"), row(engine="single"))}) == 4


CONDITIONS = Conditions(
    hardware="1 core of the tests",
    gflops={"float32": 90.0, "bfloat16": 200.0},
    world_size=1,
    threads=1,
    precision="bfloat16",
    bn_batch=64,
    jpeg_engine="libjpeg",
    versions={"torch": "2.15.0"},
)
FINAL = FinalTest(
    train_error=1.5,
    train_examples=50_000,
    top1_error=9.01,
    top5_error=0.4,
    examples=3,
    predictions_sha256="0" * 64,
    right=packed(np.array([True, False, True])),
)


def test_what_decides_the_network_decides_the_setting():
    """Precision, batch norm's group and a gentle start that the paper does not have; not the speed or the step."""
    found = row(conditions=(CONDITIONS,))
    fast = CONDITIONS.model_copy(update={"gflops": {"float32": 1.0}, "step": 7})
    assert row(conditions=(CONDITIONS, fast)).setting == found.setting
    schedule = recipe("cifar10-resnet20").schedule.model_copy(update={"gentle_lr": 0.01, "gentle_error": 80.0})
    gentle = recipe("cifar10-resnet20").model_copy(update={"schedule": schedule})
    others = [
        row(),
        row(conditions=(CONDITIONS.model_copy(update={"precision": "float32"}),)),
        row(conditions=(CONDITIONS.model_copy(update={"bn_batch": 128}),)),
        row(conditions=(CONDITIONS,), recipe=gentle),
    ]
    assert len({other.setting for other in others} | {found.setting}) == 5
    assert row("cifar10-resnet110", conditions=(CONDITIONS,)).setting == found.setting, "section 4.2 starts it gently"
    assert not row(recipe=gentle).is_papers_schedule
    chosen = recipe("cifar10-resnet20").model_copy(update={"precision": "bfloat16"})
    assert row(recipe=chosen, conditions=(CONDITIONS,)).is_papers_setting


def test_a_field_that_a_later_version_adds_leaves_older_rows_where_they_are():
    """The recipe of an older row lacks border and others: read again it has their defaults, and the same setting."""
    old = json.loads(row().model_dump_json())
    del old["recipe"]["images"]["border"], old["recipe"]["ema"]
    assert ResultRow(**old).file_name == row().file_name
    assert "ema" not in row().setting
    images = recipe("cifar10-resnet20").images.model_copy(update={"border": "mean"})
    mean = row(recipe=recipe("cifar10-resnet20").model_copy(update={"images": images}))
    differing = [name for name, value in mean.aspects.items() if value != row().aspects[name]]
    assert differing == ["border"]


def test_the_finished_network_in_float32_is_what_tables_show(tmp_path):
    whole = row(final=FINAL, conditions=(CONDITIONS,), cpu_seconds=60.0)
    assert whole.errors("single") == (9.01, 0.4)
    half = Evaluated(protocol="single", top1_error=9.5, top5_error=0.5, examples=3, precision="bfloat16")
    full = Evaluated(protocol="single", top1_error=9.02, top5_error=0.5, examples=3, precision="float32")
    assert row(evaluations=(half,)).errors("single") == (50.0, 5.0)
    assert row(evaluations=(full, half), final=FINAL).errors("single") == (9.02, 0.5)
    assert FINAL.are_right().tolist() == [True, False, True]
    write_results(tmp_path, [whole])
    assert read_results(tmp_path) == (whole,)
    with pytest.raises(ValueError, match="right must hold 30 images, got 8 bits"):
        unpacked(FINAL.right, 30)


def test_errors_are_found_by_protocol():
    ten = Evaluated(protocol="10-crop", top1_error=28.0, top5_error=9.0, examples=50_000, precision="float32")
    mirrored = Evaluated(**{**ten.model_dump(), "protocol": "multi-scale", "mirror": True})
    found = row("imagenet-plain18", protocol="1-crop", evaluations=(ten, mirrored))
    assert found.errors("1-crop") == (50.0, 5.0)
    assert found.errors("10-crop") == (28.0, 9.0)
    assert found.errors("multi-scale") is None  # the paper's had no mirror images, as far as it says
