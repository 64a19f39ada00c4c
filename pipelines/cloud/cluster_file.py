"""A cluster.yaml as it is read before anything is asked of a cloud: what is unfilled, which machines it may rent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

PLACEHOLDER = "REPLACE"


class NodeType(NamedTuple):
    """One kind of machine. most: of them at the same time; leads: the head's kind."""

    name: str
    instance_type: str
    most: int
    spot: bool
    leads: bool
    config: dict[str, Any]


def read(path: Path) -> dict[str, Any]:
    """The file's content. ValueError where it is no cluster file."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"the cluster file must be YAML that can be read, got {path}: {error}") from None
    if not isinstance(content, dict) or "provider" not in content or "available_node_types" not in content:
        raise ValueError(f"the cluster file must have provider and available_node_types, got {path}")
    return content


def unfilled(path: Path) -> list[str]:
    """Line and text of every placeholder, comments apart."""
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        value = line.partition(" #")[0].strip()
        if PLACEHOLDER in value and not value.startswith("#"):
            found.append(f"{path.name}:{number} {value}")
    return found


def node_types(content: dict[str, Any]) -> Iterator[NodeType]:
    """The kinds of machines that may be rented, the head among them."""
    workers = content.get("max_workers", 0)
    for name, kind in content["available_node_types"].items():
        leads, config = name == content.get("head_node_type"), kind["node_config"]
        most = 1 if leads else min(workers, kind.get("max_workers", workers))
        spot = config.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        yield NodeType(name, config["InstanceType"], most, spot, leads, config)


def bucket(content: dict[str, Any]) -> str | None:
    """The bucket's name in the environment of the nodes; None where none is named."""
    words = str(content.get("metadata", {}).get("environment", "")).split()
    places = [word.partition("=")[2] for word in words if word.startswith("RESNET_BUCKET=s3://")]
    return places[0].removeprefix("s3://").partition("/")[0] if places else None
