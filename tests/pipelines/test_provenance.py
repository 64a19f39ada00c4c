"""A result names the commit and the libraries that it was made with."""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from pipelines import provenance

ROOT = Path(__file__).resolve().parents[2]


def test_the_commit_is_that_of_the_working_copy_wherever_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    monkeypatch.delenv(provenance.COMMIT, raising=False)
    monkeypatch.chdir(tmp_path)
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert provenance.git_commit() == head.strip()


def test_a_job_says_the_commit_that_it_was_submitted_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(provenance.COMMIT, "c0ffee")
    assert provenance.git_commit() == "c0ffee"


def test_without_git_or_outside_a_checkout_it_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(provenance.COMMIT, raising=False)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert provenance.git_commit() == "unknown"
    monkeypatch.setenv("GIT_DIR", os.devnull)
    assert provenance.git_commit() == "unknown"


def test_an_environment_inside_another_working_copy_is_not_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install` into the .venv of a project of the user's own, which is a git checkout."""
    monkeypatch.delenv(provenance.COMMIT, raising=False)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    assert len(provenance.git_commit()) == 40
    parts = tmp_path / ".venv" / "lib" / "python3.12" / "site-packages" / "resnet_ray" / "parts"
    parts.mkdir(parents=True)
    monkeypatch.setattr(provenance, "ROOT", parts)
    assert provenance.git_commit() == "unknown"


def test_versions_are_those_that_are_installed() -> None:
    found = provenance.versions()
    assert set(found) == {"deep-residual-ray", "torch", "ray"}
    assert found["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
