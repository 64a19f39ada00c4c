"""The endpoint's configurations are what Ray Serve, our settings and HAProxy accept; the image has what they need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
SERVE = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
SERVICE = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "endpoint" / "rayservice.yaml").read_text())


@pytest.mark.parametrize(
    "config", [SERVE, yaml.safe_load(SERVICE["spec"]["serveConfigV2"])], ids=["serve", "rayservice"]
)
def test_serve_configs_are_what_ray_serve_and_our_settings_accept(config: dict[str, Any]) -> None:
    from ray.serve.schema import ServeDeploySchema

    from serve.settings import Args

    schema = ServeDeploySchema.model_validate(config)
    (application,) = schema.applications
    assert application.import_path == "serve.app:build"
    args = Args(**application.args)
    assert args.min_replicas >= 2  # one can die, and the other answers
    assert schema.http_options.host == "0.0.0.0"  # HAProxy of one node asks replicas of another
    assert args.api_key_file


def test_every_node_of_the_rayservice_has_what_haproxy_needs() -> None:
    from serve.haproxy import environment

    written = re.search(r"python -m serve\.haproxy (\S+)", DOCKERFILE)
    assert written
    cluster = SERVICE["spec"]["rayClusterConfig"]
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        variables = {each["name"]: each["value"] for each in container["env"]}
        assert variables.pop("RAY_SERVE_HAPROXY_BINARY_PATH") == f"{written[1]}/haproxy"
        assert variables.pop("RAY_SERVE_HAPROXY_NBTHREAD") == "1"
        assert variables == environment.SETTINGS


def test_image_is_made_by_the_script_that_makes_every_environment_without_what_is_private() -> None:
    assert "bash deploy/setup.sh" in DOCKERFILE
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().split()
    assert {".git", ".venv*", "runs", "deploy/kubernetes/platform/secrets"} <= set(ignored)


def test_image_has_the_lock_and_the_commit_that_the_build_names() -> None:
    from pipelines import provenance

    assert "ARG RESNET_LOCK=requirements-run.txt" in DOCKERFILE
    assert f"ARG {provenance.COMMIT}=unknown" in DOCKERFILE
    assert f"{provenance.COMMIT}=${provenance.COMMIT}" in DOCKERFILE.rpartition("ENV ")[2]
    for line in re.findall(r"^COPY --chown=1000:1000 (.+) \S+$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    assert "linux/amd64,linux/arm64" in DOCKERFILE
