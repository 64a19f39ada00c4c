"""jpeg_region.c compiled on first use, once a machine."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from resnet.host.home_folder import home_folder

SOURCE = Path(__file__).with_name("jpeg_region.c")
# What each engine's library is compiled with: before the source, and after it.
FLAGS = {"libjpeg": (("-DREGION",), ("-lm", "-ljpeg")), "c": ((), ("-lm",))}


def loaded_library(name: str) -> ctypes.CDLL | None:
    """jpeg_region.c for an engine, compiled now or before. None: no compiler, no libjpeg-turbo, or nowhere to write."""
    compiler = shutil.which(os.environ.get("CC") or "cc")
    before, after = FLAGS[name]
    made_for = (sys.platform, platform.machine(), *before)
    key = hashlib.sha256(b"\0".join([SOURCE.read_bytes(), *(part.encode() for part in made_for)]))
    folder = _private_folder()
    if folder is None:
        return None
    path = folder / f"region-{name}-{key.hexdigest()[:16]}.so"
    library = _load(path)
    if library is None and compiler and _compile([compiler, *before], list(after), path):
        library = _load(path)
    return library


def _load(path: Path) -> ctypes.CDLL | None:
    """None where it is not there, or from a machine with another libjpeg or C library, by a shared home."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    pointer, integer, long, double = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_double
    library.resize.argtypes = [pointer, integer, integer, long, *[double] * 4, integer, integer, integer, pointer]
    library.resize_window.argtypes = [pointer, integer, integer, long, *[integer] * 6, pointer]
    if hasattr(library, "decode_region"):
        region = [integer] * 5
        library.decode_region.argtypes = [pointer, long, *region, pointer, long, ctypes.POINTER(integer)]
        library.crop_all.argtypes = [pointer, integer, integer]
    return library


def _compile(command: list[str], libraries: list[str], path: Path) -> bool:
    """Several processes may compile at once: each renames a file of its own into place."""
    descriptor, made = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(descriptor)
    try:
        options = ["-std=gnu11", "-O3", "-shared", "-fPIC", "-o", made, str(SOURCE), *libraries]
        done = subprocess.run([*command, *options], capture_output=True, timeout=120, check=False)
        if done.returncode == 0:
            os.replace(made, path)
        return done.returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        Path(made).unlink(missing_ok=True)


def _private_folder() -> Path | None:
    """cache/ of the home folder, else one in the temporary folder; only where no other user can write."""
    if not hasattr(os, "getuid"):
        return None
    places = []
    with contextlib.suppress(ValueError):  # no home that can be written
        places.append(home_folder() / "cache")
    with contextlib.suppress(FileNotFoundError):  # no temporary folder either
        places.append(Path(tempfile.gettempdir(), f"resnet-cache-{os.getuid()}"))
    for folder in places:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.stat()
        except OSError:
            continue
        # A library that somebody else may replace is never loaded.
        if status.st_uid == os.getuid() and not status.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    return None
