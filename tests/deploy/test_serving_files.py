"""The files for Kubernetes and `serve deploy` name what is there: Ray's pinned version, jobs, settings, one image."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
JOB, SERVICE, SERVE = (
    yaml.safe_load((ROOT / "deploy" / name).read_text()) for name in ("rayjob.yaml", "rayservice.yaml", "serve.yaml")
)
CLUSTERS = {"rayjob": JOB["spec"]["rayClusterSpec"], "rayservice": SERVICE["spec"]["rayClusterConfig"]}


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_run_the_ray_that_is_pinned_in_one_image_with_bounds(name: str) -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert pinned
    assert CLUSTERS[name]["rayVersion"] == pinned[1]
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    for container in containers(CLUSTERS[name]):
        assert container["image"] == f"REGISTRY/deep-residual-ray:{version[1]}"
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_entrypoint_of_the_rayjob_is_a_job_with_a_valid_command_line() -> None:
    from jobs import train_imagenet
    from pipelines import command_line
    from pipelines.run import Run, standard

    python, script, recipe, *options = shlex.split(JOB["spec"]["entrypoint"])
    assert python == "python"
    assert Path(script).name == Path(str(train_imagenet.__file__)).name
    run = command_line.parse_arguments(Run, standard(recipe), options, "")
    assert run.storage_path.startswith("s3://")


@pytest.mark.parametrize(
    "config", [SERVE, yaml.safe_load(SERVICE["spec"]["serveConfigV2"])], ids=["serve", "rayservice"]
)
def test_serve_configs_are_what_ray_serve_and_our_settings_accept(config: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.settings import Args

    (application,) = ServeDeploySchema.model_validate(config).applications
    assert application.import_path == "serve.app:build"
    assert Args(**application.args).min_replicas >= 2  # one can die, and the other answers


def test_every_node_of_the_rayservice_has_what_haproxy_needs() -> None:
    from serve.haproxy import environment

    written = re.search(r"python -m serve\.haproxy (\S+)", (ROOT / "deploy" / "Dockerfile").read_text())
    assert written
    for container in containers(CLUSTERS["rayservice"]):
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables.pop("RAY_SERVE_HAPROXY_BINARY_PATH") == f"{written[1]}/haproxy"
        assert variables.pop("RAY_SERVE_HAPROXY_NBTHREAD") == "1"
        assert variables == environment.SETTINGS


def test_image_is_made_by_the_script_that_makes_every_environment() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    assert "bash deploy/setup.sh" in text
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv*", "runs"} <= set(ignored)
