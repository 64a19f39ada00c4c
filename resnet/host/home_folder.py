"""The folder for everything that no option names: results, MLflow's store, caches."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

VARIABLE = "RESNET_HOME"
ROOT = Path(__file__).resolve().parents[2]  # of the checkout, where this is one
UPLOADED = "_ray_pkg_"  # in the path of a checkout that Ray has copied for a job, and removes


def home_folder() -> Path:
    """$RESNET_HOME, else runs/ of the checkout that this program runs from, else ~/resnet. Absolute.

    ValueError: none of them can be written.
    """
    if given := os.environ.get(VARIABLE):
        return _writable(_expanded(given))
    if _is_checkout() and _can_write(ROOT / "runs"):
        return ROOT / "runs"
    return _writable(_expanded("~/resnet"))


def give_home() -> None:
    """Set HOME where the user has no home folder: Ray, torch and matplotlib look for one when they are imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(home_folder())


def other_homes() -> list[Path]:
    """The places, other than home_folder(), where results of this program lie: where they were looked for before."""
    places = [ROOT / "runs"] if _is_checkout() else []
    places += [Path("runs").absolute()]
    with contextlib.suppress(RuntimeError):  # a user without a home folder
        places.append(Path("~/resnet").expanduser())
    here = home_folder()
    return [place for place in dict.fromkeys(places) if place != here and (place / "mlflow.db").exists()]


def _is_checkout() -> bool:
    return (ROOT / "pyproject.toml").exists() and UPLOADED not in str(ROOT)


def _expanded(place: str) -> Path:
    try:
        return Path(place).expanduser().resolve()
    except RuntimeError:
        raise ValueError(
            f"{VARIABLE} must name a folder: this user has no home folder, and {place} is below it"
        ) from None


def _writable(folder: Path) -> Path:
    if not _can_write(folder):
        raise ValueError(f"{VARIABLE} must name a folder that this user can write to, got {folder}")
    return folder


def _can_write(folder: Path) -> bool:
    """True if a folder can be written, or made."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
