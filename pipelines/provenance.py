"""Provenance of a result: the commit of this project and the versions of its libraries."""

from __future__ import annotations

import os
import subprocess
from importlib import metadata
from pathlib import Path

from resnet import __version__

ROOT = Path(__file__).resolve().parents[1]
UNKNOWN_COMMIT = "unknown"
COMMIT = "RESNET_GIT_COMMIT"  # environment variable by which a job learns the commit that it was submitted from


def git_commit() -> str:
    """The commit that a job was submitted from, else that of the working copy this file belongs to, or unknown.

    Installed into an environment that lies in another program's working copy, it is not that one's.
    """
    if given := os.environ.get(COMMIT):
        return given
    # In a container the working copy often belongs to another user; to ask for its commit is safe all the same.
    words = ["git", "-C", str(ROOT), "-c", "safe.directory=*", "rev-parse", "--show-toplevel", "HEAD"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN_COMMIT
    return said[1] if len(said) == 2 and Path(said[0]).resolve() == ROOT else UNKNOWN_COMMIT


def versions() -> dict[str, str]:
    """This program, and libraries that a run's figures may depend on. What its workers run on, they say themselves."""
    return {"deep-residual-ray": __version__} | {name: metadata.version(name) for name in ("torch", "ray")}
