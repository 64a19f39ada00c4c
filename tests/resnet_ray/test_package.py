"""What `pip install` gives: the command, all files that the code reads, and no name that others have too."""

import os
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("resnet", "resnet_ray", "jobs", "pipelines", "serve")
TYPED = ("resnet", "resnet_ray", "resnet_ray/parts/pipelines", "resnet_ray/parts/serve")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built as pip builds it, by the backend of pyproject.toml."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


@pytest.fixture(scope="module")
def installed(wheel: zipfile.ZipFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Site-packages with the wheel, and others' packages of the names that are ours in a checkout."""
    folder = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(folder)
    for name in ("serve", "pipelines", "jobs"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise SystemExit('this is another program')")
    return folder


def run(installed: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    command = [sys.executable, "-P", "-m", "resnet_ray", *words]
    return subprocess.run(command, cwd=cwd, env=kept | {"PYTHONPATH": str(installed)}, capture_output=True, text=True)


def test_every_file_of_the_program_is_there(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("this is no git checkout")
    places = {name if name.startswith("resnet") else f"resnet_ray/parts/{name}" for name in tracked}
    there = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert there == places
    suffixes = {Path(name).suffix for name in there}
    assert {".c", ".css", ".html", ".in", ".j2", ".txt"} <= suffixes
    assert {f"{folder}/py.typed" for folder in TYPED} <= there


def test_no_name_collides(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    (metadata,) = [name for name in tops if name.endswith(".dist-info")]
    assert tops - {metadata} == {"resnet", "resnet_ray"}
    about = Parser().parsestr(wheel.read(f"{metadata}/METADATA").decode())
    assert (about["Name"], metadata) == ("deep-residual-ray", f"deep_residual_ray-{about['Version']}.dist-info")
    assert b"resnet-ray = resnet_ray.__main__:main" in wheel.read(f"{metadata}/entry_points.txt")


def test_the_version_is_the_package_s(installed: Path, tmp_path: Path) -> None:
    (metadata,) = installed.glob("*.dist-info")
    version = metadata.name.removesuffix(".dist-info").rpartition("-")[2]
    assert run(installed, "--version", cwd=tmp_path).stdout == f"resnet-ray {version}\n"


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("train", "resnet-ray train imagenet-resnet50-B --data.path s3://bucket/shards"),
        ("sweep", "resnet-ray sweep table6"),
        ("prepare", "resnet-ray prepare --source.path DIR --out SHARDS"),
        ("deploy", "--max-waiting"),
    ],
)
def test_a_command_is_its_job_beside_others_packages(word: str, says: str, installed: Path, tmp_path: Path) -> None:
    done = run(installed, word, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert says in " ".join(done.stdout.split())
    assert "jobs/" not in done.stdout.partition("options")[0].split("Kaggle")[0]


@pytest.mark.slow
def test_a_job_runs_from_any_folder(installed: Path, tmp_path: Path) -> None:
    """write_report reads its template and its style sheet from the package."""
    home, rows = tmp_path / "home", tmp_path / "rows"
    rows.mkdir()
    shutil.copy(min((ROOT / "results" / "trainings").glob("*.json")), rows)
    done = run(installed, "report", "--out", str(home / "report"), "--results", str(rows), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (home / "report" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["trian"], 2, "COMMAND must be one of train, sweep,"),
        (["train", "cifar10-resnet21"], 2, "resnet-ray train: "),
        (["cluster"], 1, "python -m pipelines.cluster -- python"),
        ([], 0, ""),
    ],
)
def test_mistakes(words: list[str], status: int, says: str, installed: Path, tmp_path: Path) -> None:
    done = run(installed, *words, cwd=tmp_path)
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_every_job_has_a_command() -> None:
    from resnet_ray.__main__ import SCRIPTS

    assert set(SCRIPTS.values()) == {path.stem for path in (ROOT / "jobs").glob("*_*.py")}
