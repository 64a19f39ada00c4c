"""MLmodel's loader_module: serve/pyfunc_model.py, in a checkout and where the wheel is installed."""

from __future__ import annotations

from typing import Any

from resnet_ray import add_to_path


def _load_pyfunc(path: str) -> Any:
    """MLflow's call."""
    add_to_path()
    from serve import pyfunc_model

    return pyfunc_model.ImageClassifier(path)
