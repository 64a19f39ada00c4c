"""A plan names what decodes JPEGs, and the nodes that lack a compiler."""

from typing import Any

import pytest

from pipelines.cluster.planning.node_engines import engines_named, engines_shown, jpeg_engines
from resnet.images import jpeg_region


@pytest.mark.parametrize(
    ("engines", "shown"),
    [
        (["libjpeg"] * 4, "libjpeg"),
        (["wheels"], "wheels (for want of a C compiler: a third slower)"),
        (
            ["libjpeg", "wheels", "libjpeg"],
            "libjpeg on 2 nodes, wheels on 1 node (for want of a C compiler: a third slower)",
        ),
        (["c", "c"], "c (for want of jpeglib.h)"),
    ],
)
def test_engines_are_named_with_what_a_node_lacks(engines: list[str], shown: str) -> None:
    assert engines_shown(engines) == shown


def test_a_record_names_the_engine_of_all_ranks() -> None:
    assert engines_named(["wheels", "wheels"]) == "wheels"
    assert engines_named(["wheels", "c", "wheels"]) == "wheels on 2 ranks, c on 1 rank"


def test_nodes_are_asked_for_theirs(ray_local: Any) -> None:
    here = jpeg_region.best().name
    assert jpeg_engines(1) == [here]
    assert jpeg_engines(2) == [here], "as one of several nodes would be asked"
