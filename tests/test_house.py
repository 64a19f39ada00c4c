"""The house rules of the project, read from its own source: who may import whom, sizes, names, job scripts."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("resnet", "resnet_ray", "pipelines", "serve", "jobs")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Each list: from top to bottom; a line may import what stands in the lines below it, and nothing beside or above.
LAYERS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "": (("resnet_ray",), ("jobs",), ("serve", "pipelines"), ("resnet",)),
    "resnet": (
        ("paper",),
        ("evaluation", "dense", "retrieval"),
        ("training",),
        ("recipes",),
        ("networks",),
        ("images", "image_class"),
        ("host", "frozen"),
    ),
    "pipelines": (
        ("command_line",),
        ("tuning", "evaluation", "dense"),
        ("training",),
        ("reports", "models"),
        ("tracking", "preparation", "prediction"),
        ("stream", "progress"),
        ("cluster", "cloud", "shards"),
        ("run", "storage", "provenance", "stop_signals", "job_notice"),
        ("data_settings",),
        ("file_names",),
    ),
    "serve": (
        ("deployment", "pyfunc_model"),
        ("app",),
        ("deploy_settings",),
        ("deploy_checks", "grpc_gateway"),
        ("api",),
        ("versions",),
        ("inference",),
        ("haproxy", "settings", "problems", "metrics", "job_log"),
    ),
}
# A module -> the files and folders that alone may import it
ONLY_IN: Mapping[str, tuple[str, ...]] = {
    "mlflow": ("pipelines/tracking/",),
    "pyarrow.parquet": ("pipelines/shards/", "pipelines/preparation/", "pipelines/prediction/"),
    "pyarrow.csv": ("pipelines/shards/", "pipelines/preparation/", "pipelines/prediction/"),
    "pyarrow.json": ("pipelines/shards/", "pipelines/preparation/", "pipelines/prediction/"),
    "pyarrow.orc": ("pipelines/shards/", "pipelines/preparation/", "pipelines/prediction/"),
    "pyarrow.feather": ("pipelines/shards/", "pipelines/preparation/", "pipelines/prediction/"),
    "pyarrow.ipc": ("pipelines/shards/", "pipelines/preparation/", "pipelines/prediction/"),
    "pyarrow.dataset": ("pipelines/shards/", "pipelines/preparation/", "pipelines/prediction/"),
    "ray.serve": ("serve/",),
    "ray": ("pipelines/", "serve/app.py", "serve/deployment.py", "serve/versions/rollout.py"),
    # a replica fetches its checkpoint itself, wherever it runs: docs/decisions
    "pyarrow": ("pipelines/", "serve/inference/checkpoint_files.py"),
}
MOST_FILES, MOST_LINES = 12, 320
MOST_JOBS = 20  # one a command, each of a name that says what it does
# Names that are the same word for the same kind of thing everywhere
SHARED_NAMES: Mapping[str, str] = {
    "main": "the entry point of a script",
    "job": "the function of a job script",
    "build": "resnet.build(name), and serve.app:build as Ray Serve's configuration files say",
}
# What breaks a rule today, to be mended: these sets may only shrink, and a test says so where one is mended.
KNOWN: Mapping[str, frozenset[str]] = {}  # rule: what breaks it for now


@dataclass(frozen=True)
class Import:
    """One name that a file imports. module: dotted, of our own or another; typing: for type checkers only."""

    path: str
    line: int
    module: str
    typing: bool

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in SOURCES}


def imports(path: Path) -> Iterator[Import]:
    """Everything a file imports, wherever in the file."""
    tree, name = ast.parse(path.read_text()), str(path.relative_to(ROOT))
    guards = (node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typing = {id(inner) for guard in guards for statement in guard.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Import(name, node.lineno, alias.name, id(node) in typing) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield Import(name, node.lineno, f"{node.module}.{alias.name}", id(node) in typing)


EVERY = tuple(found for path in SOURCES for found in imports(path))


def own_module(name: str) -> str | None:
    """The module of ours that a dotted name lies in, or None."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def agree(rule: str, found: Iterable[str], where: Mapping[str, str] | None = None) -> None:
    """Fail where something breaks a rule that is not known to, or a known one no longer does."""
    broken, known = set(found), KNOWN.get(rule, frozenset())
    new = sorted(f"{(where or {}).get(each, '')} {each}".strip() for each in broken - known)
    assert not new, f"{rule}: new\n" + "\n".join(new)
    assert not known - broken, f"{rule}: mended, take it out of KNOWN\n" + "\n".join(sorted(known - broken))


def part_of(module: str, package: str) -> str:
    """The folder or file of a package that a module belongs to: training of pipelines.training.fit."""
    parts = module.split(".")
    return parts[1 if package else 0] if len(parts) > (1 if package else 0) else ""


@pytest.mark.parametrize("package", LAYERS, ids=lambda package: package or "the packages")
def test_imports_point_downwards(package: str) -> None:
    # a file without a place in the table stands above all; another test asks for its place
    height = {part: -level for level, parts in enumerate(LAYERS[package]) for part in parts}
    where: dict[str, str] = {}
    for each in EVERY:
        target, source = own_module(each.module), dotted(ROOT / each.path)
        if target is None or (package and {source.split(".")[0], target.split(".")[0]} != {package}):
            continue
        above, below = part_of(source, package), part_of(target, package)
        if Path(each.path).name == "__main__.py":  # nobody imports an entry point
            continue
        if above and below and above != below and height.get(above, 1) <= height.get(below, 1):
            where.setdefault(f"{each.path} -> {target}", each.where)
    agree(f"arrows {package}".strip(), where, where)


def test_every_folder_has_its_place_in_the_table() -> None:
    for package, layers in LAYERS.items():
        folder = ROOT / package
        there = {path.name.removesuffix(".py") for path in folder.iterdir() if package and path.suffix == ".py"}
        there |= {path.parent.name for path in folder.glob("*/__init__.py")}
        if package:
            assert there - {"__init__"} == {part for layer in layers for part in layer}, package


def circles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan 1972), sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Late imports and those for type checkers count too: each is a file that cannot be read without the other."""
    edges: dict[str, set[str]] = {}
    for each in EVERY:
        target, source = own_module(each.module), dotted(ROOT / each.path)
        if target is not None and target != source and MODULES[target].name != "__init__.py":
            edges.setdefault(source, set()).add(target)
    agree("circles", (" ".join(group) for group in circles(edges)))


@pytest.mark.parametrize("module", ONLY_IN)
def test_libraries_are_imported_where_they_belong(module: str) -> None:
    where: dict[str, str] = {}
    for each in EVERY:
        below = each.module == module or each.module.startswith(f"{module}.")
        if below and not each.path.startswith(ONLY_IN[module]) and not own_module(each.module):
            where.setdefault(f"{each.path} -> {module}", each.where)
    agree(f"libraries {module}", where, where)


def most_files(folder: Path) -> int:
    return MOST_JOBS if folder == ROOT / "jobs" else MOST_FILES


def test_folders_and_files_are_small() -> None:
    folders = {path.parent for path in SOURCES}
    counts = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    agree("folders", (str(folder.relative_to(ROOT)) for folder, files in counts.items() if files > most_files(folder)))
    lines = {path: len(path.read_text().splitlines()) for path in SOURCES}
    agree("files", (str(path.relative_to(ROOT)) for path, length in lines.items() if length > MOST_LINES))


def public_names(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def test_a_name_means_one_thing() -> None:
    owners: dict[str, set[str]] = {}
    for path in SOURCES:
        for name in public_names(path):
            owners.setdefault(name, set()).add(str(path.relative_to(ROOT)))
    twice = {name: sorted(files) for name, files in owners.items() if len(files) > 1 and name not in SHARED_NAMES}
    agree("names", (f"{name}: {' '.join(files)}" for name, files in twice.items()))


def test_file_names_are_used_once() -> None:
    owners: dict[str, list[str]] = {}
    for path in SOURCES:
        if path.name not in ("__init__.py", "__main__.py"):
            owners.setdefault(path.name, []).append(str(path.relative_to(ROOT)))
    agree("file names", (f"{name}: {' '.join(files)}" for name, files in owners.items() if len(files) > 1))


def test_every_module_has_a_test_of_its_name() -> None:
    tests = {str(path.relative_to(ROOT / "tests")) for path in (ROOT / "tests").rglob("test_*.py")}
    expected = {path: path.relative_to(ROOT).with_name(f"test_{path.name}") for path in SOURCES}
    untested = (
        str(path.relative_to(ROOT))
        for path, test in expected.items()
        if path.name not in ("__init__.py", "__main__.py") and str(test) not in tests
    )
    agree("without test", untested)


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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_statements(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            told = ast.get_docstring(node) or ""
            assert told.partition(" ")[0] not in {"What", "Whether", "How", "Who"}, told


def test_importing_resnet_is_light() -> None:
    heavy = {"ray", "torch", "torchvision", "mlflow", "pyarrow"}
    modules = "sys, resnet, resnet.networks.architectures, resnet.recipes.named"
    code = f"import {modules}; print(*{heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == ""


@pytest.mark.parametrize("job", sorted((ROOT / "jobs").glob("*_*.py")), ids=lambda path: path.stem)
def test_a_job_says_its_help_without_ray(job: Path) -> None:
    """Ray reads environment variables when it is imported, and connect() and haproxy set them first."""
    code = f"import sys, jobs.{job.stem}; print(*{{'ray', 'mlflow', 'torch'}} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    agree(f"early imports of {job.stem}", out.stdout.split())


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
