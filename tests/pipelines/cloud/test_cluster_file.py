"""What is read of a cluster.yaml before any cloud is asked."""

from pathlib import Path

import pytest

from pipelines.cloud import cluster_file

ROOT = Path(__file__).resolve().parents[3]


def test_the_shipped_file_tells_its_placeholders_by_line() -> None:
    found = cluster_file.unfilled(ROOT / "cluster.yaml")
    assert [place.split(" ", 1)[1] for place in found] == [
        "image: &image ami-REPLACE",
        "security_group: &security_group sg-REPLACE",
        "RESNET_BUCKET=s3://REPLACE",
    ]
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    for place in found:
        number = int(place.split()[0].removeprefix("cluster.yaml:"))
        assert "REPLACE" in lines[number - 1]


def test_machines_of_the_shipped_file() -> None:
    content = cluster_file.read(ROOT / "cluster.yaml")
    kinds = {kind.name: kind for kind in cluster_file.node_types(content)}
    assert [name for name, kind in kinds.items() if kind.leads] == ["head"]
    assert kinds["head"].most == 1
    assert (kinds["gpu-g6-spot"].most, kinds["gpu-g6-spot"].spot) == (8, True)
    assert not kinds["gpu-on-demand"].spot
    assert cluster_file.bucket(content) == "REPLACE"


def test_a_kind_has_at_most_as_many_machines_as_the_cluster() -> None:
    node = {"node_config": {"InstanceType": "g6.12xlarge"}}
    content = {
        "max_workers": 3,
        "head_node_type": "h",
        "available_node_types": {"h": node, "w": node | {"max_workers": 9}},
    }
    assert [kind.most for kind in cluster_file.node_types(content)] == [1, 3]


@pytest.mark.parametrize("text", ["a: [", "[]", "provider: {type: aws}", "\x00"])
def test_what_is_no_cluster_file_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(ValueError, match="the cluster file must"):
        cluster_file.read(tmp_path / "cluster.yaml")
