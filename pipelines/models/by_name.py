"""Trained models by the name that a person gives: our checkpoints, the registry's models, weights of others."""

from __future__ import annotations

import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipelines.models.pretrained_weights import WEIGHTS, model_of_file, open_weights
from pipelines.models.weight_files import is_weights, read_weights
from pipelines.run import home
from pipelines.storage import Folder
from pipelines.tracking import model_registry
from resnet.image_class import ImageClass

if TYPE_CHECKING:
    from resnet.dense.dense_checkpoint import DenseCheckpoint
    from resnet.evaluation.scorer import Model
    from resnet.training.checkpoint import Checkpoint

Read = TypeVar("Read")


def open_models(names: Sequence[str], network: str | None = None, preprocess: str | None = None) -> list[Model]:
    """Read models. network, preprocess: what files of weights are, and how they want their images; without effect, and
    so an error, where there is none."""
    if not names:
        raise ValueError("a checkpoint, a registered model such as resnet@champion, or a file of weights must be named")
    files = [name for name in names if is_weights(name)]
    if not files:
        _require_weights(network, preprocess)
    return [open_weights(name, network, preprocess) if name in files else open_checkpoint(name)[0] for name in names]


def _require_weights(network: str | None, preprocess: str | None) -> None:
    """ValueError: an option for files of weights where there is none."""
    for option, value in (("network", network), ("preprocess", preprocess)):
        if value is not None:
            raise ValueError(f"{option} is for files of weights ({', '.join(WEIGHTS)}): a checkpoint knows its own")


def open_checkpoint(name: str) -> tuple[Model, Checkpoint]:
    """A checkpoint by its folder, its URI, or its name in the registry: resnet@champion, resnet/3."""
    from resnet.evaluation.scorer import Model

    checkpoint = read_checkpoint(place(name))
    return Model.of(name, checkpoint), checkpoint


def place(name: str) -> str:
    """Folder or URI of a checkpoint; a name of the registry is looked up there."""
    if "://" in name or Path(name).exists():
        return name
    looks_registered = "@" in name or (name.count("/") == 1 and name.rpartition("/")[2].isdigit())
    if not looks_registered:
        raise ValueError(
            f"model must be a checkpoint, a file of weights, or a name such as resnet@champion, got {name}"
        )
    return model_registry.resolve(name)[0]


def checkpoint_of(name: str, network: str | None = None, preprocess: str | None = None) -> tuple[str, str]:
    """(folder or URI, version) of a checkpoint by what a person names: that place, a name of the registry, or a file of
    weights, which becomes a checkpoint in $RESNET_HOME/weights. ValueError says what is missing."""
    if is_weights(name):
        return _as_checkpoint(name, network, preprocess)
    _require_weights(network, preprocess)
    if "://" in name or Path(name).exists():
        task_at(name)  # to say now what is wrong with it
        return (name if "://" in name else str(Path(name).resolve())), "unregistered"
    place(name)  # the sentence on names
    return model_registry.resolve(name)


def _as_checkpoint(path: str, network: str | None, preprocess: str | None) -> tuple[str, str]:
    """A file of weights as a checkpoint beside the others, written once; its version is the start of its SHA-256.

    What weights want of their images is part of the checkpoint, and of the folder's name.
    """
    from resnet.recipes.named import recipe
    from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint

    file = read_weights(path)
    model, how = model_of_file(path, file, network, preprocess)
    version = file.sha256[:12]
    seen = f"{how.images.eval_side}-{how.size}-{how.interpolation}"
    folder = Path(home(), "weights", f"{model.network}-{version}-{seen}")
    if not folder.exists():
        classes = model.classes or tuple(ImageClass(id=i, wnid=str(i), name=f"class {i}") for i in range(model.outputs))
        run = {"recipe": recipe(model.network).model_copy(update={"images": model.images}).model_dump(mode="json")}
        progress = Progress(step=0, total_steps=0, examples=0, classes=classes)
        save_checkpoint(folder, Checkpoint(model.weights, {}, {"mean": model.mean, "std": model.std}, run, progress))
    return str(folder), version


def read_checkpoint(where: str) -> Checkpoint:
    """A checkpoint of classification from a folder or URI. ValueError: there is none, it is damaged or cannot be
    read, or it is of another task."""
    from resnet.training.checkpoint import load_checkpoint

    return _read_at(where, load_checkpoint)


def read_dense(where: str) -> DenseCheckpoint:
    """A checkpoint of detection or segmentation. ValueError: as of read_checkpoint."""
    from resnet.dense.dense_checkpoint import load_dense

    return _read_at(where, load_dense)


def task_at(where: str) -> str:
    """The task of a checkpoint: classification, detection or segmentation. ValueError: as of read_checkpoint."""
    from resnet.training.checkpoint import read_checkpoint_files, task_of

    return _read_at(where, lambda folder: task_of(read_checkpoint_files(Path(folder)).run))


def _read_at(where: str, load_checkpoint: Callable[[str], Read]) -> Read:
    """Result of a reader of the local folder with a checkpoint's files."""
    try:
        if where.startswith(("http://", "https://")):
            with tempfile.TemporaryDirectory(prefix="checkpoint-") as temporary:
                _download(where, Path(temporary))
                return load_checkpoint(temporary)
        folder = Folder(where)
        steps = [e.name for e in folder.entries() if e.is_folder and e.name.startswith("step-")]
        if steps:
            raise ValueError(
                f"a checkpoint must be named, {where} holds several: the last is {where.rstrip('/')}/{steps[-1]}"
            )
        if folder.is_local:
            return load_checkpoint(folder.path())
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as temporary:
            for entry in folder.entries():
                if not entry.is_folder:
                    Path(temporary, entry.name).write_bytes(folder.read(entry.name))
            return load_checkpoint(temporary)
    except OSError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"checkpoint {where.partition('?')[0]} cannot be read: {first}") from None


def _download(where: str, target: Path) -> None:
    """The files of a checkpoint on the web, which has no listings. OSError."""
    from resnet.training.checkpoint import FILES

    for name in FILES:
        try:
            with urllib.request.urlopen(f"{where.rstrip('/')}/{name}", timeout=60) as answer:
                (target / name).write_bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code not in (404, 410):
                raise


def keep_examples(where: str, shards: str, count: int = 8) -> None:
    """Store a few validation images and the network's answers with a checkpoint: whoever loads it can check itself.

    In float32, on this machine. ValueError, OSError: the checkpoint or the shards cannot be read.
    """
    from safetensors.torch import save

    from pipelines.shards.row_groups import open_split
    from pipelines.stream.augmentation import center
    from resnet.training.checkpoint import EXAMPLES, answered

    checkpoint, split = read_checkpoint(where), open_split(shards, "val")[1]
    if not split.examples:  # judged by a part of train that is held out
        split = open_split(shards, "train")[1]
    seen = checkpoint.recipe.images.for_evaluation()
    crops = np.stack([center(data, seen) for data in split.read(0, ("image",))["image"][:count]])
    with Folder(where).writing(EXAMPLES) as stream:
        stream.write(save(answered(checkpoint, crops)))


def label_map(model: Model, classes: Sequence[ImageClass]) -> list[int]:
    """The output of the model that each class of a data set is, by WordNet id. ValueError: the model lacks a class."""
    if model.classes is None:
        if len(classes) != model.outputs:
            raise ValueError(f"{model.name} tells {model.outputs} classes apart, the data have {len(classes)}")
        return list(range(len(classes)))
    known = {c.wnid: c.id for c in model.classes}
    missing = [c for c in classes if c.wnid not in known]
    if missing:
        raise ValueError(f"{model.name} does not know class {missing[0].wnid} ({missing[0].name}) of the data")
    return [known[c.wnid] for c in classes]


def output_names(model: Model, classes: Sequence[ImageClass]) -> tuple[str, ...]:
    """The meaning of each output of the model: the data set's name of the class if it has it, else the model's own."""
    own = [f"class {i}" for i in range(model.outputs)] if model.classes is None else [c.name for c in model.classes]
    for output, label in zip(label_map(model, classes), classes, strict=True):
        own[output] = label.name
    return tuple(own)
