"""A small training on the digits that the tests of this folder run in their own process."""

from pathlib import Path
from typing import Any

import torch

from pipelines.run import Run, standard
from pipelines.training.rank_data import RankData
from pipelines.training.run_data import RunData, WorkerData
from pipelines.training.worker_loop import train
from resnet.training.checkpoint import Checkpoint, load_checkpoint

CPU = torch.device("cpu")
STEPS = 24


def small(storage: Path, recipe: dict[str, Any] | None = None, **changes: Any) -> Run:
    """ResNet-8 on the digits for 24 steps, two more than an epoch holds; saved after 16, 22 and 24."""
    run = standard("cifar10-resnet8", data_is_given=False)
    wanted = run.recipe.model_dump() | {"epochs": None, "steps": STEPS, "precision": "float32", "bn_batch": None}
    fields = {"scaling": {"workers": 1}, "storage": str(storage)} | changes
    checkpoints = {"every_steps": 1, "keep": 9}
    return Run(**(run.model_dump() | {"recipe": wanted | (recipe or {}), "checkpoints": checkpoints} | fields))


def trained(run: Run, data: tuple[RunData, WorkerData]) -> Checkpoint:
    """The last checkpoint of a run that is trained here."""
    train(RankData(run, data[1], 0, 1, CPU))
    return load_checkpoint(f"{run.storage_path}/{run.name}/step-{STEPS:08d}")


def same(a: Checkpoint, b: Checkpoint) -> bool:
    """Whether weights, momentum and all else are equal to the last bit."""
    pairs = ((a.model, b.model), (a.optimizer, b.optimizer))
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x) for x, y in pairs)
