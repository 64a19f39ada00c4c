"""Trained models by the name that a person gives: our checkpoints, the registry's models, weights of others."""

from __future__ import annotations

import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines import imagenet_classes, tracking
from pipelines.run import home
from pipelines.storage import Folder
from pipelines.weight_files import SUFFIXES, is_weights, read_weights
from resnet.classes import ImageClass

if TYPE_CHECKING:
    from pipelines.preprocessing import Preprocessing
    from pipelines.weight_files import WeightFile
    from resnet.checkpoint import Checkpoint
    from resnet.protocols import Model

WEIGHTS = SUFFIXES  # of files of weights


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
    from resnet.protocols import Model

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
    return tracking.resolve(name)[0]


def checkpoint_of(name: str, network: str | None = None, preprocess: str | None = None) -> tuple[str, str]:
    """(folder or URI, version) of a checkpoint by what a person names: that place, a name of the registry, or a file of
    weights, which becomes a checkpoint in $RESNET_HOME/weights. ValueError says what is missing."""
    if is_weights(name):
        return _as_checkpoint(name, network, preprocess)
    _require_weights(network, preprocess)
    if "://" in name or Path(name).exists():
        read_checkpoint(name)  # to say now what is wrong with it
        return (name if "://" in name else str(Path(name).resolve())), "unregistered"
    place(name)  # the sentence on names
    return tracking.resolve(name)


def _as_checkpoint(path: str, network: str | None, preprocess: str | None) -> tuple[str, str]:
    """A file of weights as a checkpoint beside the others, written once; its version is the start of its SHA-256.

    What weights want of their images is part of the checkpoint, and of the folder's name.
    """
    from resnet.checkpoint import Checkpoint, Progress, save
    from resnet.recipe import recipe

    file = read_weights(path)
    model, how = _model_of(path, file, network, preprocess)
    version = file.sha256[:12]
    seen = f"{how.images.eval_side}-{how.size}-{how.interpolation}"
    folder = Path(home(), "weights", f"{model.network}-{version}-{seen}")
    if not folder.exists():
        classes = model.classes or tuple(ImageClass(id=i, wnid=str(i), name=f"class {i}") for i in range(model.outputs))
        run = {"recipe": recipe(model.network).model_copy(update={"images": model.images}).model_dump(mode="json")}
        progress = Progress(step=0, total_steps=0, examples=0, classes=classes)
        save(folder, Checkpoint(model.weights, {}, {"mean": model.mean, "std": model.std}, run, progress))
    return str(folder), version


def read_checkpoint(where: str) -> Checkpoint:
    """A checkpoint from a folder or URI. ValueError: there is none, or it is damaged or cannot be read."""
    from resnet.checkpoint import load

    try:
        if where.startswith(("http://", "https://")):
            with tempfile.TemporaryDirectory(prefix="checkpoint-") as temporary:
                _download(where, Path(temporary))
                return load(temporary)
        folder = Folder(where)
        steps = [e.name for e in folder.entries() if e.is_folder and e.name.startswith("step-")]
        if steps:
            raise ValueError(
                f"a checkpoint must be named, {where} holds several: the last is {where.rstrip('/')}/{steps[-1]}"
            )
        if folder.is_local:
            return load(folder.path())
        with tempfile.TemporaryDirectory(prefix="checkpoint-") as temporary:
            for entry in folder.entries():
                if not entry.is_folder:
                    Path(temporary, entry.name).write_bytes(folder.read(entry.name))
            return load(temporary)
    except OSError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"checkpoint {where.partition('?')[0]} cannot be read: {first}") from None


def _download(where: str, target: Path) -> None:
    """The files of a checkpoint on the web, which has no listings. OSError."""
    from resnet.checkpoint import FILES

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

    from pipelines.pictures import center
    from pipelines.split import open_split
    from resnet.checkpoint import EXAMPLES, answered

    checkpoint, split = read_checkpoint(where), open_split(shards, "val")[1]
    if not split.examples:  # judged by a part of train that is held out
        split = open_split(shards, "train")[1]
    seen = checkpoint.recipe.images.for_evaluation()
    crops = np.stack([center(data, seen) for data in split.read(0, ("image",))["image"][:count]])
    with Folder(where).writing(EXAMPLES) as stream:
        stream.write(save(answered(checkpoint, crops)))


def open_weights(path: str, network: str | None, preprocess: str | None = None) -> Model:
    """Weights of torchvision, timm or Hugging Face, and of what trains such networks, with the preprocessing that they
    want, which is told on standard error. network, preprocess: where they do not say."""
    return _model_of(path, read_weights(path), network, preprocess)[0]


def _model_of(path: str, file: WeightFile, network: str | None, preprocess: str | None) -> tuple[Model, Preprocessing]:
    """The model of weights that were read. ValueError: they do not fit."""
    import torch

    from pipelines.preprocessing import class_names, preprocessing_of, settle_network
    from resnet.protocols import Model
    from resnet.weight_keys import torchvision_weights

    network = settle_network(network, file, path)
    try:
        weights = torchvision_weights(file.content)
    except ValueError as error:
        raise ValueError(f"{path} holds no weights of a residual network: {error}") from None
    how = preprocessing_of(file, preprocess)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) * 255 for values in (how.mean, how.std))
    outputs = weights["fc.weight"].shape[0]
    names = imagenet_classes.names() if outputs == 1000 else {}
    if not names and (own := class_names(file, outputs)) is not None:
        names = {name: name for name in own}
    classes = tuple(ImageClass(id=i, wnid=wnid, name=name) for i, (wnid, name) in enumerate(names.items())) or None
    model = Model(path, network, weights, mean, std, how.images, classes)
    model.build()  # now, and not on a worker, is the time to find that they do not fit
    print(f"{path.partition('?')[0]}: {network}, images {how.told}", file=sys.stderr)
    return model, how


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
    """What each output of the model means: the data set's name of the class if it has it, else the model's own."""
    own = [f"class {i}" for i in range(model.outputs)] if model.classes is None else [c.name for c in model.classes]
    for output, label in zip(label_map(model, classes), classes, strict=True):
        own[output] = label.name
    return tuple(own)
