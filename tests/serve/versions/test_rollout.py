"""Nodes that could not reach each other's replicas are refused before anything is deployed."""

from pathlib import Path
from typing import Any

import pytest
import ray

from serve.app import build
from serve.deployment import deploy
from serve.settings import Args
from serve.versions import rollout

REFUSED = (
    "host must be one that other nodes reach, 0.0.0.0 with an api_key_file, where HAProxy takes the requests on 2 "
    "nodes, got 127.0.0.1"
)


@pytest.fixture
def two_nodes(ray_local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared Ray says that it has a second node, and that one that is gone is gone."""
    (node,) = ray.nodes()
    monkeypatch.setattr(ray, "nodes", lambda: [node, node, node | {"Alive": False}])
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")


def test_loopback_on_several_nodes_is_refused_before_serve_starts(two_nodes: None, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="host must be one that other nodes reach") as refused:
        deploy(Args(checkpoint=str(tmp_path)), "127.0.0.1", 8000)
    assert str(refused.value) == REFUSED


def test_any_other_host_one_node_or_serves_own_proxy_is_fine(
    two_nodes: None, ray_local: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout.require_reachable("0.0.0.0")
    rollout.require_reachable("10.0.0.7")
    monkeypatch.undo()
    rollout.require_reachable("127.0.0.1")  # one node


def test_an_application_of_a_config_file_is_refused_where_serve_listens_on_loopback(
    two_nodes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollout, "serve_address", lambda: ("127.0.0.1", 8000))
    with pytest.raises(ValueError, match="host must be one that other nodes reach"):
        build(Args(checkpoint=str(tmp_path)))
    monkeypatch.setattr(rollout, "serve_address", lambda: ("0.0.0.0", 8000))
    assert build(Args(checkpoint=str(tmp_path)))
