"""Provenance of a result: the commit of this project and the versions of its libraries."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path

COMMIT = "RESNET_GIT_COMMIT"  # environment variable by which a job learns the commit that it was submitted from


def git_commit() -> str:
    """The commit that a job was submitted from, else that of the working copy this file belongs to, or unknown."""
    if given := os.environ.get(COMMIT):
        return given
    try:
        words = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions() -> dict[str, str]:
    """Libraries that a run's figures may depend on. What its workers run on, they say themselves."""
    return {name: metadata.version(name) for name in ("torch", "ray")}
