"""Nodes that an autoscaler may add: as words, in the file that `ray up` leaves on the head, in Ray's own record."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cluster.planning import known_nodes
from pipelines.cluster.planning.known_nodes import Addable, addable_nodes, of_cluster_file, parsed_types
from pipelines.cluster.planning.resource_plan import Node, NodeKind, Wishes, plan_training, with_added
from pipelines.run import standard

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    ("words", "types"),
    [
        ("8 x 48 CPUs 4 GPUs", [NodeKind(8, 48, 4)]),
        ("8x48 CPUs and 4 GPUs, 1 x 64 CPU", [NodeKind(8, 48, 4), NodeKind(1, 64)]),
        ("2 x 3.5 CPUs 1 GPU,", [NodeKind(2, 3.5, 1)]),
        ("", []),
    ],
)
def test_words_name_node_types(words: str, types: list[NodeKind]) -> None:
    assert parsed_types(words) == tuple(types)


@pytest.mark.parametrize("words", ["many", "8 nodes", "8 x 4 GPUs", "48 CPUs", "8 x 48 CPUs; 1 x 2 CPUs"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(ValueError, match="RESNET_ADDABLE_NODES must be like `8 x 48 CPUs 4 GPUs, 4 x 64 CPUs`, got"):
        parsed_types(words)


def test_the_file_of_a_cluster_names_what_may_be_added() -> None:
    """Four kinds of GPU nodes and two of CPU nodes, alike for the plan, twelve nodes in all."""
    text = (ROOT / "cluster.yaml").read_text()
    found = of_cluster_file(text)
    assert found == Addable((*[NodeKind(8, 48, 4)] * 4, *[NodeKind(4, 32)] * 2), 12)
    assert with_added([], found.types, found.limit) == (Node(48, 4, up=False),) * 12
    config: Any = yaml.safe_load(text)
    for kind in config["available_node_types"].values():
        del kind["resources"]
    assert of_cluster_file(yaml.safe_dump(config)) == Addable((), 12), "a type that names none is not known"
    types = {"w": {"resources": {"CPU": 16, "memory": 2**34}}, "off": {"resources": {"CPU": 8}, "max_workers": 0}}
    assert of_cluster_file(yaml.safe_dump({"max_workers": 3, "available_node_types": types})) == Addable(
        (NodeKind(3, 16),), 3
    )


def test_cluster_yaml_as_shipped_trains_on_gpus() -> None:
    """With no worker up, where it once trained ImageNet on the head."""
    found = of_cluster_file((ROOT / "cluster.yaml").read_text())
    run = standard("imagenet-resnet50-B")
    asked = Wishes(run.scaling, run.recipe.passes, needs_gpu=True)
    plan = plan_training(with_added([], found.types, found.limit), asked)
    assert (plan.workers[:3], plan.coming) == ((4, 4, 0), 2)
    assert plan.per_worker == {"CPU": 6, "GPU": 1}


def test_words_come_before_all_else(ray_local: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(known_nodes.ADDABLE, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert addable_nodes() == Addable(), "nobody says"
    types = {"w": {"resources": {"CPU": 16, "GPU": 2}, "max_workers": 2}}
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(yaml.safe_dump({"max_workers": 5, "available_node_types": types}))
    assert addable_nodes() == Addable((NodeKind(2, 16, 2),), 5), "this process is on the head"
    monkeypatch.setenv(known_nodes.ADDABLE, "1 x 8 CPUs")
    assert addable_nodes() == Addable((NodeKind(1, 8),))
    assert known_nodes.known_nodes() == (Node(4),), "a private Ray does not grow"
    monkeypatch.setenv("RESNET_RAY_ALONE", "0")
    assert known_nodes.known_nodes() == (Node(4), Node(8, up=False))
