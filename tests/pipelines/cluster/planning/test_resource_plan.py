"""Which node holds how many workers: the clusters that people have, with the right answer written down."""

from typing import Any

import hypothesis.strategies as some
import pytest
from hypothesis import given

from pipelines.cluster.planning import resource_plan
from pipelines.cluster.planning.resource_plan import Node, NodeKind, Wishes, plan_training, with_added
from pipelines.run import Scaling, standard

RESNET50 = standard("imagenet-resnet50-B").recipe.passes  # 256 images, batch norm over 32: 8
CIFAR = standard("cifar10-resnet20").recipe.passes  # 128 images, batch norm over 64: 2
SHIPPED = NodeKind(8, 48, 4)  # cluster.yaml's g5.12xlarge
HEAD = Node(8)


def planned(nodes: list[Node] | tuple[Node, ...], passes: int = RESNET50, **scaling: Any) -> Any:
    needs_gpu = scaling.pop("needs_gpu", False)
    return plan_training(nodes, Wishes(Scaling(**scaling), passes, needs_gpu=needs_gpu))


# nodes, passes, what is asked -> workers of each node, GPU, CPUs and threads of each, CPUs for its data, decoding
CASES: dict[str, tuple[Any, int, dict[str, Any], tuple[int, ...], bool, float, int, float, str]] = {
    "a laptop": ([Node(2)], 2, {}, (2,), False, 0.5, 1, 0.5, "worker"),
    "a CPU server, one pass": ([Node(16)], 1, {}, (1,), False, 8, 16, 8, "worker"),
    "a machine with a GPU": ([Node(16, 1)], 8, {}, (1,), True, 8, 16, 8, "worker"),
    "cluster.yaml as shipped, no worker up": (
        with_added([HEAD], [SHIPPED]), 8, {}, (0, 4, 4, 0, 0, 0, 0, 0, 0), True, 6, 12, 6, "worker",
    ),
    "the same, 4 workers asked for": (
        with_added([HEAD], [SHIPPED]), 8, {"gpu": True, "workers": 4}, (0, 4, 0, 0, 0, 0, 0, 0, 0), True, 6, 12, 6,
        "worker",
    ),
    "1 of 2 nodes up": (
        with_added([HEAD, Node(48, 4)], [NodeKind(2, 48, 4)]), 8, {}, (0, 4, 4), True, 6, 12, 6, "worker",
    ),
    "a head that takes no work": (
        [Node(48, 4), Node(0)], 8, {}, (4,), True, 6, 12, 6, "worker",
    ),
    "one GPU node beside four CPU nodes, which decode": (
        [Node(64), Node(48, 4), Node(64), Node(64), Node(64)], 8, {}, (0, 4, 0, 0, 0), True, 6, 12, 70, "tasks",
    ),
    "ten CPU nodes": ([Node(4)] * 10, 8, {"gpu": False}, (1,) * 8 + (0, 0), False, 2, 4, 2, "worker"),
    "ten CPU nodes, two passes": ([Node(4)] * 10, 2, {}, (1, 1) + (0,) * 8, False, 2, 4, 18, "tasks"),
    "a small head and one large CPU node": ([Node(2), Node(64)], 2, {}, (0, 2), False, 16, 32, 16, "worker"),
    "a small head and two large CPU nodes": ([Node(2), Node(64), Node(64)], 2, {}, (0, 1, 1), False, 32, 64, 32,
                                             "worker"),
    "3 GPUs": ([Node(24, 3)], 8, {}, (2,), True, 6, 12, 6, "worker"),
    "5 GPUs": ([Node(40, 5)], 8, {}, (4,), True, 5, 10, 5, "worker"),
    "6 GPUs": ([Node(48, 6)], 8, {}, (4,), True, 6, 12, 6, "worker"),
    "7 GPUs": ([Node(48, 7)], 8, {}, (4,), True, 6, 12, 6, "worker"),
    "12 GPUs": ([Node(96, 12)], 8, {}, (8,), True, 6, 12, 6, "worker"),
    "GPUs of different nodes": ([Node(48, 4), Node(8, 2), Node(4, 1)], 8, {"workers": 4}, (4, 0, 0), True, 2, 4, 2,
                                "worker"),
    "GPUs of different nodes, all": ([Node(4, 1), Node(48, 4), Node(8, 2), Node(8, 1)], 8, {}, (1, 4, 2, 1), True, 2, 4,
                                     2, "worker"),
    "a part of a GPU": ([Node(16, 1)], 2, {"gpu": True, "workers": 1, "gpus_per_worker": 0.5}, (1,), True, 8, 16, 8,
                        "worker"),
    "elastic": ([Node(2)], 64, {"workers": "1:4"}, (4,), False, 0.25, 1, 0.25, "worker"),
    "elastic on GPUs, one there": ([Node(8, 1)], 64, {"workers": "1:4", "gpu": True}, (1,), True, 4, 8, 4, "worker"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_table_of_clusters(case: str) -> None:
    nodes, passes, asked, workers, gpu, cpus, threads, data, decode = CASES[case]
    plan = planned(nodes, passes, **asked)
    scaling = plan.scaling
    assert plan.workers == workers
    assert (scaling.gpu, scaling.cpus_per_worker, scaling.threads) == (gpu, cpus, threads)
    assert (scaling.data_cpus, plan.decode) == (data, decode)
    assert plan.per_worker == {"CPU": cpus} | ({"GPU": scaling.gpus_per_worker or 1} if gpu else {})


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no GPU": ([Node(8)], {"gpu": True, "workers": 4}, "scaling.workers must be at most the cluster's 0 GPUs, got 4"),
    "too few GPUs": ([Node(8, 1)], {"gpu": True, "workers": "2:4"}, "at most the cluster's 1 GPUs, got 2:4"),
    "two ranks on a GPU": (
        [Node(16, 2)], {"gpu": True, "workers": 2, "gpus_per_worker": 0.5},
        "scaling.gpus_per_worker must be 1 with more than one worker: .* got 0.5 and 2 workers",
    ),
    "no CPU left for data": ([Node(2)], {"workers": 2, "cpus_per_worker": 1}, r"must leave 0.25 .* 2 CPUs .*2 x 1"),
    "a worker that fits on no node": (
        [Node(4)] * 10, {"workers": 2, "cpus_per_worker": 10}, r"fit on a node \(10 x 4 CPUs\), got 2 x 10",
    ),
    "a head alone that takes no work": ([Node(0)], {}, "must have a node with CPUs.* got none"),
    "ImageNet without a GPU": ([Node(8), Node(8)], {"needs_gpu": True}, r"gpu must be said .*--scaling.gpu False"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_never_fit_is_refused_in_one_sentence(case: str) -> None:
    nodes, asked, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence) as caught:
        planned(nodes, **asked)
    assert "\n" not in str(caught.value)


def test_imagenet_trains_on_cpus_where_that_was_said() -> None:
    assert not planned([Node(8), Node(8)], needs_gpu=True, gpu=False).scaling.gpu
    assert planned([Node(8), Node(8, 1)], needs_gpu=True).scaling.gpu


@given(
    nodes=some.lists(some.builds(Node, some.integers(1, 64).map(float), some.integers(0, 8).map(float)), min_size=1,
                     max_size=6),
    passes=some.sampled_from([1, 2, 8, 16, 60]),
)  # fmt: skip
def test_a_plan_fits_wherever_ray_puts_its_workers(nodes: list[Node], passes: int) -> None:
    plan = planned(nodes, passes)
    each, count = plan.per_worker, sum(plan.workers)
    assert count == plan.scaling.most
    assert passes % count == 0
    for node, held in zip(plan.nodes, plan.workers, strict=True):
        assert held <= node.room(each["CPU"], each.get("GPU", 0))
        if each.get("GPU"):  # as many as there are GPUs, whichever nodes Ray takes: half of the CPUs stay free
            assert min(count, node.gpus) * each["CPU"] <= max(node.cpus / 2, 0.05 * node.gpus) + 0.01 * node.gpus
    assert plan.short(nodes) is None
    assert "\n" not in plan.shown


def test_nodes_that_may_be_added() -> None:
    up = [HEAD, Node(48, 4), Node(48, 4)]
    assert with_added(up, [NodeKind(3, 48, 4)])[3:] == (Node(48, 4, up=False),)
    assert with_added(up, [NodeKind(1, 48, 4)]) == tuple(up), "more are up than the type may have"
    assert with_added(up, [NodeKind(8, 48, 4), NodeKind(8, 64)], limit=5)[3:] == (Node(48, 4, up=False),) * 3


def test_a_plan_says_what_it_takes_and_what_is_to_come() -> None:
    plan = planned(with_added([HEAD, Node(48, 4)], [SHIPPED]))
    assert plan.shown == (
        "8 workers on 2 nodes, 1 of them to be added, each with 1 GPU, 6 CPUs and 12 threads; up to 6 CPUs a worker "
        "read and decode, beside the training"
    )
    assert plan.short([HEAD, Node(48, 4)]) == (
        "8 workers with 1 GPU and 6 CPUs each; the nodes that are up have room for 4"
    )
    assert resource_plan.described(plan.nodes[:4]) == (
        "1 x 8 CPUs, 1 x 48 CPUs and 4 GPUs up; 2 x 48 CPUs and 4 GPUs may be added"
    )
    one = planned([Node(2)], 2)
    assert one.shown.startswith("2 workers on 1 node, each with 0.5 CPUs and 1 thread; up to 0.5 CPUs")
