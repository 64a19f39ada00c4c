"""A linear probe: the classifier alone is trained, on pooled features, in minutes on a CPU.

The first step of fine-tuning. It says what the weights know already, and its checkpoint is a network like any other: it
can be served, and `--init` takes it, so that a fine-tuning begins with a classifier that is not random (Kumar et al.
2022, arXiv 2202.10054).
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, model_validator

from pipelines.data_settings import Data
from pipelines.evaluation.pooled_features import Features, pooled_features
from pipelines.models.by_name import open_models
from pipelines.models.initial_weights import as_wanted, read_initial
from pipelines.models.preprocessing import NetworkOption, PreprocessOption
from pipelines.progress.text_table import text_table
from pipelines.run import Run, home
from pipelines.training.run_data import RunData, open_source
from resnet.evaluation.error_summary import Ranked
from resnet.frozen import Frozen
from resnet.networks.architectures import parse_network
from resnet.recipes.named import recipe

if TYPE_CHECKING:
    from resnet.evaluation.scorer import Model
    from resnet.training.checkpoint import Checkpoint

STRENGTHS = tuple(float(c) for c in np.logspace(-4, 2, 7))  # 1 / regularisation, as scikit-learn counts it
FOLDS = 3
NEVER = -50.0  # logit of a class without a training image, beside others of about 0
ROUNDS = 1000  # of L-BFGS


class Probe(Frozen):
    """The weights that are probed, and where the checkpoint goes."""

    data: Data = Data()
    network: NetworkOption = None
    preprocess: PreprocessOption = None
    class_weights: Annotated[bool, Field(description="all classes weigh the same, however few images one has")] = False
    strength: Annotated[
        float | None,
        Field(gt=0, description="1 / regularisation. None: the best of 1e-4 to 100 by cross-validation on train"),
    ] = None
    out: Annotated[
        str | None, Field(description="folder for the checkpoint. None: in $RESNET_HOME/probes, by weights and data")
    ] = None

    @model_validator(mode="after")
    def _there_are_data(self) -> Probe:
        if self.data.path is None:
            raise ValueError("data.path must be given: shards from jobs/write_shards.py")
        return self


class ProbeOutcome(Frozen):
    """The result of a probe. Errors in percent of `examples` validation images; cross_validated: error on train by
    which the strength was chosen, None where it was given; checkpoint: for --init, or to be served."""

    model: str
    network: str
    data: str
    classes: int
    strength: float
    cross_validated: float | None
    train_error: float
    top1_error: float
    loss: float
    ece: float
    examples: int
    seconds: float
    checkpoint: str


def probe(name: str, asked: Probe, *, show: bool = True) -> ProbeOutcome:
    """Train a classifier on the features of a network. ValueError for a wrong setting, before any image is read."""
    began = time.monotonic()
    (model,) = open_models([name], asked.network, asked.preprocess)
    begun = _run(name, model, asked)
    source = open_source(begun)
    train, val = (
        pooled_features(model, s, source.manifest.fingerprint(), show=show) for s in (source.train, source.val)
    )
    strength, error = asked.strength, None
    if strength is None:
        strength, error = chosen_strength(train, asked.class_weights)
    weight, bias = fitted(train, strength, asked.class_weights, len(source.manifest.classes))
    summary = _ranked(val, weight, bias).summary()
    folder = Path(asked.out or _place(begun, source)).resolve()
    _write(folder, begun, model, source, weight, bias)
    return ProbeOutcome(
        model=name,
        network=model.network,
        data=source.uri,
        classes=len(source.manifest.classes),
        strength=strength,
        cross_validated=error,
        train_error=_ranked(train, weight, bias).summary().top1_error,
        top1_error=summary.top1_error,
        loss=summary.loss,
        ece=summary.ece,
        examples=summary.examples,
        seconds=time.monotonic() - began,
        checkpoint=str(folder),
    )


def _run(name: str, model: Model, asked: Probe) -> Run:
    """The record of a probe as a run: fine-tuning of these weights with all but the classifier frozen."""
    begun = read_initial(name, model.network)
    base = recipe(f"{model.network}@finetune")
    images = model.images  # of another policy, for whole small images or the reverse: as the weights say
    if base.images.policy == images.policy:
        images = as_wanted(base.images, model)
    *_, last = parse_network(model.network).parts
    tuned = base.finetune.model_copy(update={"frozen": last, "head": "new"})
    loss = base.loss.model_copy(update={"label_smoothing": 0.0, "class_weights": asked.class_weights})
    changed = {"images": images, "finetune": tuned, "loss": loss}
    changed |= {"optim": base.optim.model_copy(update={"batch_size": 2, "lr_batch_size": None}), "bn_batch": None}
    return Run(
        recipe=base.model_copy(update=changed),
        data=asked.data,
        init=begun.place,
        init_sha256=begun.sha256,
        promote=False,
    )


def chosen_strength(train: Features, balanced: bool) -> tuple[float, float]:
    """The strength with the lowest cross-validated loss on the training images, and its top-1 error in percent.

    By folds that hold each class in its share; a class with one image is in training folds only by chance.
    """
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        cuts = list(folds.split(train.features, train.labels))
    classes = int(train.labels.max()) + 1
    found = []
    for strength in STRENGTHS:
        parts = []
        for inside, outside in cuts:
            some = Features(train.features[inside], train.labels[inside])
            rest = Features(train.features[outside], train.labels[outside])
            parts.append(_ranked(rest, *fitted(some, strength, balanced, classes)).summary())
        count = sum(part.examples for part in parts)
        loss, error = (sum(getattr(p, f) * p.examples for p in parts) / count for f in ("loss", "top1_error"))
        found.append((loss, strength, error))
    _, strength, error = min(found)
    return strength, error


def fitted(train: Features, strength: float, balanced: bool, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, C) and bias (K,) of a multinomial logistic regression on standardised features, for plain ones."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    values = train.features.astype(np.float64)
    mean, std = values.mean(0), values.std(0)
    std[std == 0] = 1.0  # a channel that never fires
    found = LogisticRegression(C=strength, class_weight="balanced" if balanced else None, max_iter=ROUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak regularisation ends later; the loss decides
        found.fit((values - mean) / std, train.labels)
    rows, shift = found.coef_, found.intercept_
    if len(rows) == 1:  # two classes have one row: half of it for each gives the same softmax
        rows, shift = np.concatenate([-rows, rows]) / 2, np.concatenate([-shift, shift]) / 2
    weight, bias = np.zeros((classes, values.shape[1])), np.full(classes, NEVER)
    weight[found.classes_] = rows / std
    bias[found.classes_] = shift - (rows / std) @ mean
    return weight, bias


def _ranked(images: Features, weight: np.ndarray, bias: np.ndarray) -> Ranked:
    from scipy.special import softmax

    return Ranked.of(softmax(images.features @ weight.T + bias, axis=1), images.labels)


def _place(run: Run, source: RunData) -> str:
    name = f"{run.recipe.network}-{(run.init_sha256 or '')[:8]}-{source.sha256[:8]}"
    return str(Path(home(), "probes", name + ("-balanced" if run.recipe.loss.class_weights else "")))


def _write(folder: Path, run: Run, model: Model, source: RunData, weight: np.ndarray, bias: np.ndarray) -> None:
    """The checkpoint: the network with the new classifier. An earlier one of the same place goes."""
    import shutil

    import torch

    from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint

    weights: dict[str, Any] = dict(model.weights)
    weights |= {"fc.weight": torch.from_numpy(weight).float(), "fc.bias": torch.from_numpy(bias).float()}
    progress = Progress(
        step=0,
        total_steps=0,
        examples=source.val.examples,
        classes=source.manifest.classes,
        grey_range=source.manifest.encoding.grey_range,
    )
    made: Checkpoint = Checkpoint(
        weights, {}, {"mean": model.mean, "std": model.std}, run.model_dump(mode="json"), progress
    )
    if folder.exists():
        if not (folder / "progress.json").is_file():
            raise ValueError(f"out must be a folder that is absent or holds a checkpoint, got {folder}")
        shutil.rmtree(folder)
    save_checkpoint(folder, made)


def probe_table(outcome: ProbeOutcome) -> str:
    """The table of a probe's result."""
    rows = {
        "top-1 error": f"{outcome.top1_error:.2f} % of {outcome.examples:,} validation images",
        "on train": f"{outcome.train_error:.2f} %"
        + ("" if outcome.cross_validated is None else f", {outcome.cross_validated:.2f} % cross-validated"),
        "loss": f"{outcome.loss:.4f}, calibration error {100 * outcome.ece:.2f} %",
        "strength": f"{outcome.strength:g}",
        "time": f"{outcome.seconds:.0f} s",
        "checkpoint": outcome.checkpoint,
        "next": f"python jobs/train_imagenet.py {outcome.network}@finetune --data.path {outcome.data} "
        f"--init {outcome.checkpoint}",
    }
    title = f"linear probe of {outcome.model}: {outcome.classes} classes"
    return "\n".join(["", title, *(f"  {line}" for line in text_table("ll", (), list(rows.items())))])
