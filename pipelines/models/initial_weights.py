"""The trained weights that a run begins with: whose they are, how they want their images, what of them is taken.

A run that begins so has a checkpoint of step 0, written by the job before any worker starts: weights that came from
anywhere are then where each worker finds them, and a resume needs them no more.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.models.by_name import place, read_checkpoint
from pipelines.models.preprocessing import network_of
from pipelines.models.pretrained_weights import model_of_file
from pipelines.models.weight_files import is_weights, read_bytes, read_weights, shown_place
from pipelines.run import Run, absolute, standard
from resnet.networks.architectures import parse_network

if TYPE_CHECKING:
    from pipelines.shards.manifest import Manifest
    from resnet.evaluation.scorer import Model
    from resnet.recipes.recipe_settings import Images
    from resnet.training.checkpoint import Checkpoint

OPTION = "--init"


@dataclass(frozen=True)
class InitialWeights:
    """Trained weights as they were found. place: folder, file or URI; sha256: of the file with the weights."""

    place: str
    sha256: str
    model: Model


_read: dict[str, InitialWeights] = {}  # the last ones, by SHA-256: they may have come a long way


def identified(run: Run) -> Run:
    """The run with the place and SHA-256 of its initial weights; one that has them, or begins with none, as it is.

    ValueError: they are of another network, or cannot be read.
    """
    if run.init is None or run.init_sha256 is not None:
        return run
    found = read_initial(run.init, run.recipe.network)
    return run.model_copy(update={"init": found.place, "init_sha256": found.sha256})


def begin_from(run: Run) -> Run:
    """The same with the preprocessing of its initial weights in its recipe, which is told on standard error."""
    if run.init is None:
        return run
    run = identified(run)
    images = as_wanted(run.recipe.images, _weights_of(run).model)
    mean = ", ".join(f"{value:.3f}" for value in images.pixel_mean or ())
    print(
        f"{run.recipe.name} begins with {run.init}, sha256 {(run.init_sha256 or '')[:12]}: images resized to "
        f"{images.eval_side} ({images.eval_interpolation}), the middle {images.size} x {images.size}, mean {mean}",
        file=sys.stderr,
    )
    return run.model_copy(update={"recipe": run.recipe.model_copy(update={"images": images})})


def start_of(recipe_name: str, words: Sequence[str], data_is_given: bool) -> tuple[Run, list[str]]:
    """The standard run of a recipe, with the weights that --init of the words names, and the words without it.

    Before all other words: what they say of images goes before what the weights want.
    """
    init, rest = _option(words)
    return begin_from(standard(recipe_name, data_is_given=data_is_given, init=init)), rest


def _option(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of --init, and the words without it. ValueError: it is there without a value."""
    rest, value = list(words), None
    for i, word in enumerate(words):
        name, equals, given = word.partition("=")
        if name == OPTION:
            value = given if equals else next(iter(words[i + 1 : i + 2]), "")
            if not value or value.startswith("--"):
                raise ValueError("init must be a checkpoint, a registered model or a file of weights, got nothing")
            del rest[i : i + (1 if equals else 2)]
            break
    return value, rest


def read_initial(name: str, network: str) -> InitialWeights:
    """Weights by a name as jobs take it, for a network. ValueError: they are another network's, or cannot be read."""
    if is_weights(name):
        where = name if "://" in name else str(absolute(name))
        file = read_weights(where)
        if (theirs := network_of(file)) is not None:
            _require_network(name, network, theirs)
        found = InitialWeights(shown_place(where), file.sha256, model_of_file(where, file, network, None)[0])
    else:
        found = _of_checkpoint(name, network)
    _read.clear()
    _read[found.sha256] = found
    return found


def _of_checkpoint(name: str, network: str) -> InitialWeights:
    from resnet.evaluation.scorer import Model

    where = place(name)
    where = where if "://" in where else str(Path(where).resolve())
    checkpoint = read_checkpoint(where)
    _require_network(name, network, checkpoint.recipe.network)
    weights = read_bytes(where, "model.safetensors", "")
    assert weights is not None  # the checkpoint has been read
    return InitialWeights(shown_place(where), hashlib.sha256(weights).hexdigest(), Model.of(where, checkpoint))


def _require_network(name: str, mine: str, theirs: str) -> None:
    """ValueError: weights are known to be of another network. v1 and v1.5 are the same without bottlenecks."""
    a, b = parse_network(mine), parse_network(theirs)
    alike = (a.family, a.depth, a.shortcut) == (b.family, b.depth, b.shortcut)
    if not alike or (a.v15 != b.v15 and a.layout.block == "bottleneck"):
        raise ValueError(f"init must be weights of {mine}, got weights of {theirs}: {name}; the recipe names a network")


def as_wanted(images: Images, model: Model) -> Images:
    """A recipe's treatment of images, with the sizes, the filter, the mean and the std that trained weights want.

    A mean of each pixel becomes one of each channel, so that other sizes may be asked for.
    """
    theirs = model.images
    mean, std = ((values.double().mean((1, 2)) / 255).tolist() for values in (model.mean, model.std))
    own: dict[str, Any] = {}  # sizes of a network for whole small images say nothing to a streamed recipe
    if (images.policy == "pad-crop") == (theirs.policy == "pad-crop"):
        own = {"size": theirs.size, "eval_shorter_side": theirs.eval_shorter_side}
        own |= {"eval_interpolation": theirs.eval_interpolation}
    shown: dict[str, Any] = {"mean": "given", "pixel_mean": tuple(mean), "pixel_std": tuple(std)}
    return type(images).model_validate(images.model_dump() | own | shown | {"eval_size": None})


def initial_checkpoint(run: Run, data: Manifest, train: int, val: int) -> tuple[Checkpoint, str]:
    """The run before its first step, and a sentence on its classifier. train, val: images of the splits.

    ValueError: the weights are not those of init_sha256, or do not fit.
    """
    import torch

    from resnet.networks.resnet import build
    from resnet.training.checkpoint import Checkpoint, Progress
    from resnet.training.finetuning.trained_parts import rows_of_head, take_weights

    found = _weights_of(run)
    rows = rows_of_head(found.model.classes, data.classes, run.recipe.finetune.head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        net = build(run.recipe.network, len(data.classes))
    try:
        take_weights(net, found.model.weights, rows)
    except ValueError as error:
        raise ValueError(f"init must be weights of {run.recipe.network}, {run.init} does not fit: {error}") from None
    total, grey_range = run.recipe.total_steps(train), data.encoding.grey_range
    progress = Progress(step=0, total_steps=total, examples=val, classes=data.classes, grey_range=grey_range)
    pixels = {"mean": found.model.mean, "std": found.model.std}
    checkpoint = Checkpoint(net.state_dict(), {}, pixels, run.model_dump(mode="json"), progress)
    return checkpoint, _sentence(found.model.outputs, len(data.classes), rows)


def _weights_of(run: Run) -> InitialWeights:
    """The weights of a run that was identified: those just read, or read again. ValueError: they are others now."""
    assert run.init is not None
    assert run.init_sha256 is not None
    found = _read.get(run.init_sha256) or read_initial(run.init, run.recipe.network)
    if found.sha256 != run.init_sha256:
        raise ValueError(f"init_sha256 must be that of {run.init}, {found.sha256}, got {run.init_sha256}")
    return found


def _sentence(theirs: int, mine: int, rows: list[int] | None) -> str:
    if rows is None:
        return f"the classifier is new: {theirs} classes of the weights, {mine} of the data"
    if rows == list(range(theirs)):
        return f"the classifier of the weights goes on: the same {mine} classes"
    return f"the classifier begins with {mine} of the {theirs} classes of the weights"
