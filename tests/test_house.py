"""The house rules of the project, read from its own source: who may import whom, names and length of job scripts."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("resnet", "pipelines", "serve", "jobs")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def importers(module: str) -> set[str]:
    """Files that import a module or anything below it."""
    return {
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(name == module or name.startswith(f"{module}.") for name in imports(path))
    }


def packages_of(paths: set[str]) -> set[str]:
    return {path.split("/")[0] for path in paths}


def test_resnet_knows_nothing_of_the_cluster() -> None:
    for module in ("ray", "mlflow", "pyarrow", "pipelines", "serve", "jobs"):
        assert "resnet" not in packages_of(importers(module)), module


def test_serve_never_imports_pipelines() -> None:
    for module in ("pipelines", "jobs", "mlflow"):
        assert "serve" not in packages_of(importers(module)), module
    # a replica on any node reads its checkpoint from a bucket itself
    assert {path for path in importers("pyarrow") if path.startswith("serve/")} == {"serve/checkpoint_files.py"}


def test_pipelines_never_import_serve_or_jobs() -> None:
    for module in ("serve", "jobs"):
        assert "pipelines" not in packages_of(importers(module)), module


def test_only_tracking_imports_mlflow() -> None:
    assert importers("mlflow") == {"pipelines/tracking.py", "pipelines/mlflow_model.py"}


def test_only_the_application_and_its_rollout_import_ray_serve() -> None:
    # rollout.py changes the versions of a running application; with app.py it would be one file of two stories
    assert {path for path in importers("ray.serve") if path.startswith("serve/")} <= {
        "serve/app.py",
        "serve/rollout.py",
    }
    assert "pipelines" not in packages_of(importers("ray.serve"))


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.name)
def test_job_scripts_are_short_executable_and_named_verb_object(path: Path) -> None:
    if path.name == "__init__.py":
        return
    text = path.read_text()
    assert len(text.splitlines()) <= 40
    assert text.startswith("#!/usr/bin/env python3\n")
    assert path.stat().st_mode & 0o111, "not executable: `ray job submit jobs/x.py` runs it by its name"
    assert path.stem.count("_") == 1
    assert ast.get_docstring(ast.parse(text)), "--help shows the docstring"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_have_names_that_say_something(path: Path) -> None:
    assert not {"utils", "common", "manager", "factory", "helpers", "misc"} & set(path.stem.split("_"))


def test_importing_resnet_is_light() -> None:
    heavy = {"ray", "torch", "torchvision", "mlflow", "pyarrow"}
    code = f"import sys, resnet, resnet.table, resnet.recipe; print(*{heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == ""


def test_no_path_or_index_of_a_machine_is_committed() -> None:
    files = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT).stdout.split()
    if not files:
        pytest.skip("this is no git checkout")
    for name in files:
        path = ROOT / name
        if path.suffix in {".png", ".svg"} or not path.exists():
            continue
        text = path.read_text(errors="ignore")
        assert "--index-url" not in text or name == "tests/test_house.py", name
        assert path.stat().st_size < 2**20, f"{name} is larger than 1 MiB"


def test_cluster_yaml_is_valid() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text())))
