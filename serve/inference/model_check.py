"""Checks that a checkpoint can be served, before a replica takes it: the same rules, in this process.

A replica would find it out too, half a minute later and between the lines of Ray's tracebacks.
"""

from __future__ import annotations

import numpy as np
import torch

from resnet.training.checkpoint import Checkpoint, answered
from serve.inference import checkpoint_files
from serve.inference.classifier import fetch_checkpoint
from serve.inference.engines import onnx_int8

DIFFERENCE = 0.01  # of a probability from the stored one: float32 on other hardware


def require_servable(place: str, what: str, precision: str = "auto") -> None:
    """ValueError where a folder or URI surely holds no checkpoint that can be served. what: the setting that names it.

    A remote place that this machine cannot reach, or has no keys for, is not judged: the nodes of a cluster may.
    """
    shown = place if checkpoint_files.is_local(place) else checkpoint_files.shown_uri(place)
    try:
        checkpoint_files.require(place, what)
        checkpoint = fetch_checkpoint(place)
        _check_weights(checkpoint)
        if precision == "int8":
            onnx_int8.read_int8(place, 1)
    except OSError as error:
        if checkpoint_files.is_local(place):
            raise ValueError(f"{what} must be readable, got {shown}: {error.strerror or error}") from None
    except (KeyError, TypeError) as error:  # of a run.json that another program wrote
        raise ValueError(f"{what} must be a whole checkpoint, got {shown}: {type(error).__name__} {error}") from None
    except ValueError as error:
        why = str(error)
        raise (error if why.startswith(what) else ValueError(f"{what} {shown} cannot be served: {why}")) from None


def _check_weights(checkpoint: Checkpoint) -> None:
    """ValueError where the network's weights or answers are no numbers, or not those of its stored examples."""
    for name, tensor in checkpoint.model.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"weights must be finite numbers, got {_first_unfinite(tensor)} in {name}")
    stored = checkpoint.examples
    if stored is None:
        side = checkpoint.recipe.images.for_evaluation().size
        images = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    else:
        images = stored["images"].numpy()
    found = answered(checkpoint, images)["probabilities"]
    if not bool(found.isfinite().all()):
        raise ValueError("its answers are no numbers")
    if stored is not None and found.shape == stored["probabilities"].shape:
        worst = float((found - stored["probabilities"]).abs().max())
        if worst > DIFFERENCE:
            raise ValueError(
                f"its answers on its {len(found)} stored examples differ by up to {worst:.3f}, allowed {DIFFERENCE:g}"
            )


def _first_unfinite(tensor: torch.Tensor) -> str:
    return f"{tensor[~tensor.isfinite()][0].item()}"
