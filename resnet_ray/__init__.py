"""The additions of `pip install` to an environment: the command `resnet-ray`, and where this program's own code lies.

The folders jobs/, pipelines/ and serve/ have names that others use too. A wheel holds them in resnet_ray/parts/, which
only this program's processes have on their path: by `add_to_path`, and Ray's workers by PYTHONPATH.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def code_folder() -> Path:
    """The folder that jobs/, pipelines/ and serve/ lie in: resnet_ray/parts/ of a wheel, the root of a checkout."""
    here = Path(__file__).resolve().parent
    return parts if (parts := here / "parts").is_dir() else here.parent


def add_to_path() -> None:
    """Let this process, and those that it starts, import pipelines and serve from the folder of this program."""
    folder = str(code_folder())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    known = os.environ.get("PYTHONPATH", "")
    if folder not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = f"{folder}{os.pathsep}{known}" if known else folder


def __getattr__(attribute: str) -> str:
    """`resnet_ray.__version__`, as the package's metadata says it."""
    if attribute == "__version__":
        from resnet import __version__

        return __version__
    raise AttributeError(f"module 'resnet_ray' has no attribute {attribute!r}; it has __version__")
