"""How many workers a run has, and what each trains of a batch."""

from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.dense.dense_run import DenseData, DetectorRun
from pipelines.run import Run, Scaling, TrainingRun, standard
from pipelines.stream.example_order import Order


def run(**scaling: Any) -> Run:
    """The demonstration, whose batch is 64 images."""
    fields: dict[str, Any] = standard("cifar10-resnet8", data_is_given=False).model_dump()
    fields["scaling"] = scaling
    return Run(**fields)


@pytest.mark.parametrize(
    ("workers", "least", "most"), [(None, 1, 1), (3, 3, 3), ("4", 4, 4), ("2:2", 2, 2), ("1:4", 1, 4)]
)
def test_workers_are_a_number_or_a_range(workers: int | str | None, least: int, most: int) -> None:
    scaling = Scaling(workers=workers)
    assert (scaling.least, scaling.most, scaling.is_elastic) == (least, most, least < most)
    assert Scaling(**scaling.model_dump()) == scaling


def test_batch_norms_group_is_the_recipes_whatever_the_number_of_workers() -> None:
    """The paper's 64 for CIFAR and 32 for ImageNet; without one it is a worker's part of the batch."""
    assert [standard(name).part for name in ("cifar10-resnet20", "imagenet-resnet50")] == [64, 32]
    assert [run(workers=workers).part for workers in (1, 2)] == [32, 32]
    with pytest.raises(
        ValueError, match=r"recipe\.bn_batch must divide a worker's part of the batch, 16 .* keeps 2 pass"
    ):
        run(workers=4)
    base = run().recipe
    free = base.model_copy(update={"bn_batch": None})
    parts = [Run(recipe=free, scaling=Scaling(workers=w)).part for w in (1, 2, "1:4")]
    assert parts == [64, 32, 16]
    with pytest.raises(ValueError, match=r"bn_batch must divide optim.batch_size, 64, got 24"):
        Run(recipe=base.model_dump() | {"bn_batch": 24})  # pyright: ignore[reportArgumentType]


def test_a_run_of_before_is_read_with_its_precision_and_group() -> None:
    before = run(workers=2).model_dump()
    del before["recipe"]["precision"], before["recipe"]["bn_batch"]
    before["scaling"] |= {"precision": "float32", "micro_batch": 16}
    found = Run(**before)
    assert (found.recipe.precision, found.recipe.bn_batch) == ("float32", 16)


def test_a_run_whose_compiling_was_a_flag_is_read() -> None:
    found = [Scaling.model_validate({"compile": old}).compile for old in (True, False, "auto")]
    assert found == ["on", "off", "auto"]
    with pytest.raises(ValueError, match=r"compile must be 'auto', 'on' or 'off', got 'yes'"):
        Scaling(compile="yes")  # pyright: ignore[reportArgumentType]


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_ranks_share_a_batch_by_whole_parts_as_evenly_as_can_be(parts: int, part: int, data: st.DataObject) -> None:
    world_size = data.draw(st.integers(1, parts))
    order = Order((64,), parts * part, 1, 0, part)
    places = [range(order.batch_size)[order.slice(rank, world_size)] for rank in range(world_size)]
    assert [place for rank in places for place in rank] == list(range(order.batch_size))
    sizes = [len(rank) for rank in places]
    assert all(size % part == 0 for size in sizes)
    assert max(sizes) - min(sizes) <= part
    assert sizes == [order.local(rank, world_size) for rank in range(world_size)]


def test_a_run_of_its_own_name_has_a_folder_of_its_own(tmp_path: Path) -> None:
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    named = Run.model_validate(run.model_dump() | {"run_name": "low-lr"})
    assert (run.name, named.name) == ("cifar10-resnet8-A.s0", "low-lr")
    assert named.folder == f"{tmp_path}/low-lr"
    for field in ("run_name", "model_name"):
        for wrong in ("../up", "a/b", "resnet@champion", "", "x" * 101):
            with pytest.raises(ValueError, match=field):
                Run.model_validate(run.model_dump() | {field: wrong})


def test_a_sweep_refuses_one_name_for_all(tmp_path: Path) -> None:
    from pipelines import command_line
    from pipelines.tuning import paper_sweep

    words = ["--storage", str(tmp_path), "--run-name", "x"]
    with pytest.raises(ValueError, match="run_name is for one training, a sweep names its own, got x"):
        paper_sweep.trials(
            "table6", paper_sweep.Sweep(), words, lambda run, rest: command_line.parse_arguments(Run, run, rest, None)
        )


def test_runs_of_all_tasks_have_what_is_shared() -> None:
    names = {*TrainingRun.model_fields, "name", "folder", "storage_path"}
    assert {"name", "folder", "scaling", "promote"} <= names
    runs: list[TrainingRun] = [standard("cifar10-resnet20", data_is_given=False), DetectorRun(data=DenseData(path="x"))]
    for each in runs:
        for name in names:
            assert getattr(each, name) is not None or name in ("model_name", "run_name", "storage")
    assert get_type_hints(Run)["model_name"] == get_type_hints(DetectorRun)["model_name"]
