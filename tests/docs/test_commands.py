"""The commands of README and docs: those of the tutorial run, all others name what is there.

A command is an indented line of a page that begins with a program we know, or a job's in a table. Its jobs, options,
targets of make, modules and routes are looked up; nothing that needs a bucket, a cluster or a network is started.
"""

import contextlib
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FOUND = [path for place in ("docs", "docs/uses") for path in sorted((ROOT / place).glob("*.md"))]
PAGES = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in FOUND)]
PROGRAMS = ("make", "python", "curl", "ray", "serve", "bash", "source", "export", "mlflow", "chrt", ".venv/bin/uv")
TAKE_OVERRIDES = {"sweep_paper", "search_recipe", "train_folds"}  # options of a run go to every training


def commands(page: str) -> Iterator[list[str]]:
    """The words of each command of a page, lines that end in a backslash joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / page).read_text())
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)  # what a command prints
    for line in text.splitlines():
        if re.match(r" {4}\S", line) and line.split()[0] in PROGRAMS:
            yield shlex.split(line, comments=True)
        elif line.startswith("|"):
            yield from map(shlex.split, re.findall(r"`(python jobs/[^`]+)`", line))


def job_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The job's name and its arguments, also behind `ray job submit --`."""
    for i, word in enumerate(words):
        if found := re.fullmatch(r"jobs/(\w+)\.py", word):
            return found[1], words[i + 1 :]
    return None


@cache
def options(job: str) -> frozenset[str]:
    """The long options in a job's --help."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        importlib.import_module(f"jobs.{job}").job(["--help"])
    return frozenset(re.findall(r"(?<![\w-])--[a-z][\w.-]*", said.getvalue()))


ALL = [(page, words) for page in PAGES for words in commands(page)]


def test_pages_have_commands() -> None:
    assert len(ALL) > 40
    wanted = {"README.md", "docs/tutorial.md", "docs/endpoint.md", "docs/cluster.md", "docs/uses/detection.md"}
    assert {page for page, _ in ALL} >= wanted
    assert sum("--deadline" in words for page, words in ALL if page == "README.md") == 1, "a table's command"


@pytest.mark.parametrize(("page", "words"), ALL, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in ALL])
def test_a_command_names_what_is_there(page: str, words: list[str]) -> None:
    given = {word.partition("=")[0] for word in words if word.startswith("--") and word != "--"}
    if named := job_of(words):
        job, arguments = named
        known = options(job) | (options("train_imagenet") if job in TAKE_OVERRIDES else frozenset())
        asked = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        assert asked <= known, f"{page}: jobs/{job}.py has no option {sorted(asked - known)}"
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in targets, f"{page}: make has no target {words[1]}"
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), f"{page}: there is no module {words[2]}"
    elif words[0] == "python":
        source = (ROOT / words[1]).read_text()
        assert all(option in source for option in given), f"{page}: {words[1]} lacks one of {sorted(given)}"
    elif words[0] == "curl":
        (url,) = [word for word in words if word.startswith("http")]
        route = re.sub(r"^http://127\.0\.0\.1:8000|\?.*", "", url)
        source = "\n".join(path.read_text() for path in (ROOT / "serve").rglob("*.py"))
        last = "/" + route.rpartition("/")[2]
        assert f'"{last}"' in source, f"{page}: the endpoint has no route {route}"
    for word in words:
        if re.fullmatch(r"(deploy|jobs|benchmarks)/\S+|cluster\.yaml", word):
            assert (ROOT / word).exists(), f"{page}: there is no file {word}"


def write_images(folder: Path) -> None:
    """What the tutorial calls DIR and PHOTOS: class folders of a few images."""
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            place = folder / split / label
            place.mkdir(parents=True)
            for i in range(16):
                rng = np.random.default_rng((i, len(split), len(label)))
                Image.fromarray(rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)).save(place / f"{split}{i}.jpg")


# The tutorial's lengths are for people; a test takes the shortest that goes the same way. The seed keeps its runs apart
# from those of other tests in the same $RESNET_HOME.
SHORT = ["--recipe.epochs", "1", "--seed", "7"]
PLACES = {"DIR", "SHARDS", "PHOTOS", "predictions.parquet", "exported", "report"}  # a shared Ray runs in another folder
ELSEWHERE = {"deploy_best", "sweep_paper"}  # tests/serve/test_app.py and tests/pipelines/test_sweep.py run these


@pytest.mark.slow
def test_the_page_of_fine_tuning_runs(ray_local: Any, tmp_path: Path) -> None:
    """Its jobs in their order on a few small pictures, with weights as torchvision writes them; the page is there."""
    import torch
    from torchvision.models import resnet18

    for label, high in (("red", 100), ("white", 256)):
        for i in range(20):
            rng = np.random.default_rng((i, high))
            place = tmp_path / "DIR" / label / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, high, (40, 40, 3), dtype=np.uint8)).save(place)
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=5).state_dict(), tmp_path / "resnet18-00000000.pth")
    short = ["--recipe.epochs", "1", "--recipe.images.size", "32", "--recipe.optim.batch-size", "8"]
    short += ["--recipe.bn-batch", "4", "--storage", str(tmp_path / "runs"), "--no-promote"]
    more = {"train_imagenet": short, "train_folds": short, "evaluate_model": ["--draws", "100"]}
    more |= {"probe_features": ["--strength", "0.1"]}
    places = {"WEIGHTS": str(tmp_path / "resnet18-00000000.pth"), "OTHERS": str(tmp_path / "SHARDS")}
    ran = []
    for words in commands("docs/finetuning.md"):
        named = job_of(words)
        assert named is not None
        job, arguments = named
        if job in ELSEWHERE:
            continue
        arguments = [places.get(w, str(tmp_path / w) if w.isupper() else w) for w in arguments]
        if "--folds" in arguments:
            arguments[arguments.index("--folds") + 1] = "2"
        if "--seeds" in arguments:
            del arguments[arguments.index("--seeds") :]
        outcome = importlib.import_module(f"jobs.{job}").job(arguments + more.get(job, []))
        if job == "train_imagenet":
            places["CHECKPOINT"] = outcome.checkpoint
        ran.append(job)
    assert " ".join(ran) == (
        "write_shards probe_features train_imagenet evaluate_model evaluate_model evaluate_model write_shards "
        "train_folds"
    )
    assert (Path(places["CHECKPOINT"]) / "figures.json").exists()
    assert (Path(places["CHECKPOINT"]) / "distance.safetensors").exists()
    assert (tmp_path / "REPORT" / "report.html").exists()


@pytest.mark.slow
def test_the_tutorial_runs(ray_local: Any, tmp_path: Path) -> None:
    """Its jobs in their order, in one process and one Ray, small; what they make is there at the end."""
    write_images(tmp_path / "DIR")
    (tmp_path / "PHOTOS").symlink_to(tmp_path / "DIR" / "val")
    assert "-- python jobs/train_imagenet.py $(ARGS)" in (ROOT / "Makefile").read_text(), "what `make train` runs"
    ran = []
    for words in commands("docs/tutorial.md"):
        if words == ["make", "train"]:
            words = ["python", "jobs/train_imagenet.py", "cifar10-resnet8"]
        named = job_of(words)
        if named is None or named[0] in ELSEWHERE:
            continue
        job, arguments = named
        if job == "train_imagenet":
            if "--recipe.epochs" in arguments:
                at = arguments.index("--recipe.epochs")
                del arguments[at : at + 2]
            arguments += SHORT
        arguments = [str(tmp_path / word) if word in PLACES else word for word in arguments]
        importlib.import_module(f"jobs.{job}").job(arguments)
        ran.append(job)
    assert " ".join(ran) == (
        "train_imagenet evaluate_model write_shards train_imagenet predict_images export_model write_report"
    )
    for made in ("SHARDS/manifest.json", "predictions.parquet", "exported/model.onnx", "report/report.html"):
        assert (tmp_path / made).exists(), made
