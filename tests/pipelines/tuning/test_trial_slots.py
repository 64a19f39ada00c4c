"""How the trainings of a sweep share a cluster: what is printed fits, and nodes that join are used."""

from pathlib import Path
from typing import Any

import hypothesis.strategies as some
import pytest
from hypothesis import given

from pipelines.cluster.planning.resource_plan import Node, NodeKind, Wishes, with_added
from pipelines.run import Run, Scaling, standard
from pipelines.training.run_data import open_source
from pipelines.tuning.trial_slots import (
    EarlyStopping,
    Slots,
    progress_row,
    require_errors,
    require_no_name,
    share_out,
)
from resnet.networks.cost import count as count_cost


def shared(nodes: Any, count: int = 8, wanted: int | None = None, passes: int = 2, **scaling: Any) -> Slots:
    asked = Scaling.model_validate({"workers": 1} | scaling)
    return share_out(nodes, Wishes(asked, passes), count, wanted)


GPU4 = Node(16, 4)
# nodes, trials at a time that are asked for, what is asked -> how many run, GPUs of each, CPUs and threads, decoding
CASES: dict[str, tuple[Any, int | None, dict[str, Any], int, float | None, float, int, str]] = {
    "a laptop": ([Node(2)], None, {}, 2, None, 0.38, 1, "worker"),
    "parts of CPUs": ([Node(2)], 3, {}, 3, None, 0.25, 1, "worker"),
    "one core": ([Node(1)], None, {}, 1, None, 0.5, 1, "worker"),
    "a GPU each": ([GPU4], None, {}, 4, None, 1.94, 3, "worker"),
    "4 GPUs, 6 at once": ([GPU4], 6, {}, 6, 0.5, 1.29, 2, "worker"),
    "2 GPUs, 6 at once": ([Node(16, 2)], 6, {}, 6, 0.33, 1.29, 2, "worker"),
    "quarters that were asked for": ([GPU4], None, {"gpus_per_worker": 0.25}, 8, 0.25, 0.97, 1, "worker"),
    "two workers each": ([GPU4], None, {"workers": 2}, 2, None, 1.94, 3, "worker"),
    "GPU nodes beside a head": ([Node(8), Node(48, 4), Node(48, 4)], None, {}, 8, None, 5.94, 11, "worker"),
    "GPU nodes beside CPU nodes": ([Node(16, 2), Node(64)], None, {}, 2, None, 3.88, 7, "tasks"),
    "unequal CPU nodes": ([Node(2), Node(8)], None, {}, 8, None, 0.54, 1, "worker"),
    "nodes to come": (with_added([Node(0)], [NodeKind(2, 48, 4)]), None, {}, 8, None, 5.94, 11, "worker"),
}


@pytest.mark.parametrize("case", CASES)
def test_table_of_clusters(case: str) -> None:
    nodes, wanted, asked, at_once, gpus, cpus, threads, decode = CASES[case]
    found = shared(nodes, 8, wanted, **asked)
    scaling = found.scaling
    assert (found.at_once, scaling.gpus_per_worker, scaling.cpus_per_worker) == (at_once, gpus, cpus)
    assert (scaling.threads, found.decode) == (threads, decode)


@given(
    nodes=some.lists(some.builds(Node, some.integers(16, 64).map(float), some.integers(0, 8).map(float)), min_size=1,
                     max_size=5),
    wanted=some.none() | some.integers(1, 20),
)  # fmt: skip
def test_as_many_run_as_are_printed(nodes: list[Node], wanted: int | None) -> None:
    found = shared(nodes, 20, wanted)
    assert wanted is None or found.at_once == wanted
    scaling = found.scaling
    gpus = (scaling.gpus_per_worker or 1) if scaling.gpu else 0
    assert sum(node.room(scaling.cpus_per_worker or 1, gpus) for node in nodes) >= found.at_once
    assert found.fitting(nodes) >= found.at_once


def test_what_can_never_run_at_once_is_refused() -> None:
    with pytest.raises(ValueError, match=r"concurrent must be at most 2 with 2 workers of 1 GPU each .* 4 GPUs, got 3"):
        shared([GPU4], wanted=3, workers=2)
    with pytest.raises(ValueError, match=r"concurrent must be at most 8 with 1 worker of 0.5 GPU each .*got 9"):
        shared([GPU4], count=9, wanted=9, gpus_per_worker=0.5)
    with pytest.raises(ValueError, match=r"concurrent must leave 0.5 CPUs to each training, got 5 .* 1 x 2 CPUs"):
        shared([Node(2)], wanted=5)
    with pytest.raises(ValueError, match=r"scaling\.workers must be at most the cluster's 4 GPUs, got 8"):
        shared([GPU4], workers=8)


def test_nodes_that_join_are_used() -> None:
    up = [Node(48, 4)]
    found = shared(up, 20)
    assert (found.at_once, found.fitting(up), found.fitting([*up, Node(48, 4)])) == (4, 4, 8)
    assert found.fitting([*up, Node(64)]) == 4, "it has no GPU"
    assert found.fitting([]) == 4, "those that run go on"


def test_a_run_has_its_part_of_the_cluster() -> None:
    run = Run(recipe=standard("cifar10-resnet20").recipe)
    slots = shared([Node(2)])
    placed = slots.placed(run)
    assert (placed.scaling, placed.data.decode) == (slots.scaling, "worker")
    assert slots.shown == "2 at a time, each with 0.38 CPUs and 1 thread"


def test_the_first_rung_is_a_step_at_least() -> None:
    assert [EarlyStopping(grace=grace).grace_steps(22, 7) for grace in (0.001, 0.5, 1.0, 2.5)] == [1, 11, 22, 55]
    assert [EarlyStopping().grace_steps(22, usual) for usual in (0.1, 22, 39.6)] == [1, 22, 40]
    with pytest.raises(ValueError, match="reduction must be greater than 1, got 1"):
        EarlyStopping(reduction=1)


def test_what_a_sweep_cannot_do_with_a_run_is_one_sentence() -> None:
    run = standard("cifar10-resnet8", data_is_given=False)
    rarely = run.model_copy(update={"evaluate_every": 3})
    require_errors(rarely, "none")
    require_errors(run, "asha")
    with pytest.raises(ValueError, match="evaluate_every must be 1 with scheduler asha, got 3"):
        require_errors(rarely, "asha")
    require_no_name(run)
    with pytest.raises(ValueError, match="run_name is for one training, a sweep names its own, got mine"):
        require_no_name(run.model_copy(update={"run_name": "mine"}))


def test_a_trainings_row_counts_its_work_by_its_network(tmp_path: Path) -> None:
    run = standard("cifar10-resnet8", data_is_given=False).model_copy(update={"storage": str(tmp_path)})
    row = progress_row(run, open_source(run))
    assert (row.run, row.standing) == (run.name, "waiting")
    assert row.work == count_cost("cifar10-resnet8-A").multiply_adds
    assert row.images == run.recipe.total_steps(1437) * run.recipe.optim.batch_size
