"""Room for replicas: how many fit on nodes of some CPUs and GPUs. The other checks: tests/jobs/test_deploy_best.py."""

import re
from pathlib import Path

import pytest

from serve import deploy_checks
from serve.settings import Settings

SMALL, LARGE, BARE = {"CPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}, {"memory": 1e9}


@pytest.mark.parametrize(
    ("settings", "nodes", "sentence"),
    [
        ({}, [SMALL], None),
        ({"min_replicas": 2, "max_replicas": 2}, [SMALL], None),
        ({"min_replicas": 0}, [SMALL], None),
        ({"cpus": 0.0}, [BARE], None),
        ({"cpus": 0.1, "min_replicas": 20, "max_replicas": 20}, [SMALL], None),
        ({"gpus": 0.25, "min_replicas": 8, "max_replicas": 8}, [SMALL, LARGE], None),
        ({"cpus": 1.5, "min_replicas": 6, "max_replicas": 6}, [SMALL, LARGE], None),
        ({"cpus": 3.0}, [SMALL, SMALL], "cpus of a replica must be at most what the largest node has, 2 CPUs, got 3"),
        ({"cpus": 2.5}, [SMALL], "cpus of a replica must be at most what this machine has, 2 CPUs, got 2.5"),
        ({"gpus": 1.0}, [SMALL], "gpus of a replica must be at most what this machine has, no GPU, got 1"),
        ({"cpus": 1.0}, [BARE], "cpus of a replica must be at most what this machine has, no CPU, got 1"),
        (
            {"cpus": 1.5, "min_replicas": 7, "max_replicas": 7},
            [SMALL, LARGE],
            "min_replicas must be at most 6, as many replicas of 1.5 CPUs as fit, got 7",
        ),
        (  # a third of each GPU is left over, which makes no seventh
            {"cpus": 0.1, "gpus": 0.3, "min_replicas": 7, "max_replicas": 7},
            [LARGE],
            "min_replicas must be at most 6, as many replicas of 0.1 CPUs and 0.3 GPUs as fit, got 7",
        ),
        (  # each kind of node has one of the two
            {"cpus": 4.0, "gpus": 1.0},
            [{"CPU": 4.0}, {"CPU": 1.0, "GPU": 1.0}],
            "a replica must fit on one node, and none has both 4 CPUs and 1 GPUs",
        ),
    ],
)
def test_room(settings: dict[str, float], nodes: list[dict[str, float]], sentence: str | None):
    asked = Settings(**settings)  # pyright: ignore[reportArgumentType]
    if sentence is None:
        deploy_checks.require_room(asked, nodes)
        return
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        deploy_checks.require_room(asked, nodes)


def test_a_file_of_keys_that_others_can_change_is_refused_and_one_they_can_read_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    keys = tmp_path / "keys"
    keys.write_text("ann 0123456789abcdef\n")
    asked = Settings(api_key_file=str(keys))
    for mode, told in ((0o600, ""), (0o640, ""), (0o644, f"chmod 600 {keys}")):
        keys.chmod(mode)
        deploy_checks.require_keys(asked)
        said = capsys.readouterr().err
        assert told in said
        assert bool(told) == bool(said)
    keys.chmod(0o646)
    with pytest.raises(ValueError, match="api_key_file must not be one that every user can change, got "):
        deploy_checks.require_keys(asked)
