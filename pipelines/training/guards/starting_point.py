"""The checkpoint that a run goes on from or begins with, and whether it fits what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.run import Run
from resnet.image_class import ImageClass

if TYPE_CHECKING:
    from resnet.training.checkpoint import Checkpoint


def start_checkpoint(run: Run) -> Checkpoint | None:
    """The newest checkpoint of the run, else the one that it is to begin from, else None."""
    from pipelines.models.checkpoint_store import CheckpointStore, at

    found = CheckpointStore.of(run).latest()
    if found is not None:
        return found[1]
    return at(run.resume) if run.begins_elsewhere else None


def require_start(run: Run, classes: Sequence[ImageClass], examples: int) -> None:
    """ValueError names the field in which the checkpoint that a new run is to begin from does not fit.

    classes, examples: of the data; examples are those of training.
    """
    if not run.begins_elsewhere:
        return
    from pipelines.models.checkpoint_store import at
    from resnet.training.checkpoint_tensors import SCALER, WEIGHTS

    found = at(run.resume)
    if found.recipe.network != run.recipe.network:
        _refuse(run, f"a checkpoint of {run.recipe.network}", f"one of {found.recipe.network}")
    _require_classes(run, found, classes)
    _require_steps(run, found, examples)
    averaged = any(name.startswith(WEIGHTS) for name in found.optimizer)
    if averaged != (run.recipe.ema is not None):
        has = "has" if averaged else "has not"
        _refuse(run, f"a checkpoint of a training with recipe.ema {run.recipe.ema}", f"one that {has} averaged weights")
    if run.recipe.precision == "float16" and f"{SCALER}scale" not in found.optimizer:
        _refuse(run, "a checkpoint of a training in float16", f"one in {found.recipe.precision}")


def _refuse(run: Run, wanted: str, got: str) -> None:
    raise ValueError(f"resume must be {wanted}, got {got}: {run.resume}")


def _require_classes(run: Run, found: Checkpoint, classes: Sequence[ImageClass]) -> None:
    theirs = found.progress.classes
    if len(theirs) != len(classes):
        _refuse(run, f"a checkpoint of the {len(classes)} classes of data.path", f"one of {len(theirs)} classes")
    for mine, other in zip(classes, theirs, strict=True):
        if mine.wnid != other.wnid:
            wanted = "a checkpoint of the classes of data.path in their order"
            _refuse(run, wanted, f"one whose class {mine.id} is {other.wnid}, where the data have {mine.wnid}")


def _require_steps(run: Run, found: Checkpoint, examples: int) -> None:
    """The checkpoint's step is before the end, and its epochs have as many steps."""
    progress, total, per_epoch = found.progress, run.recipe.total_steps(examples), run.recipe.steps_per_epoch(examples)
    if progress.step >= total:
        _refuse(run, f"a checkpoint before the end of this training, step {total:,}", f"one of step {progress.step:,}")
    first = progress.rows[0].step if progress.rows else progress.total_steps
    if first < progress.total_steps and first != per_epoch:
        wanted = (
            f"a checkpoint of a training with {per_epoch:,} steps an epoch, by recipe.optim.batch_size and the data"
        )
        _refuse(run, wanted, f"one of {first:,}")
