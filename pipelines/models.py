"""Trained models by the name that a person gives: our checkpoints, the registry's models, weights of torchvision."""

from __future__ import annotations

import hashlib
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from pipelines import imagenet_classes, tracking
from pipelines.run import home
from pipelines.storage import Folder
from resnet.classes import ImageClass
from resnet.recipe import Images

if TYPE_CHECKING:
    from torch import Tensor

    from resnet.checkpoint import Checkpoint
    from resnet.protocols import Model

# What readers of damaged files throw: torch's reads a pickle's instructions one by one and believes each.
DAMAGED = (SafetensorError, UnpicklingError, struct.error, EOFError, RuntimeError, LookupError, TypeError, ValueError)
WEIGHTS = (".pth", ".pt", ".bin", ".safetensors")
# torchvision's ImageClassification preset, in [0, 255]
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)
TORCHVISION = Images(
    size=224, policy="random-resized-crop", area=(0.08, 1.0), eval_shorter_side=256, mean="per-channel"
)


def open_models(names: Sequence[str], network: str | None = None) -> list[Model]:
    """Read models. network: what files of weights are; without effect, and so an error, where there is none."""
    if not names:
        raise ValueError("a checkpoint, a registered model such as resnet@champion, or a file of weights must be named")
    files = [name for name in names if name.endswith(WEIGHTS)]
    if network is not None and not files:
        raise ValueError(f"network is for files of weights ({', '.join(WEIGHTS)}): a checkpoint knows its own")
    return [open_weights(name, network) if name in files else open_checkpoint(name)[0] for name in names]


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


def checkpoint_of(name: str, network: str | None = None) -> tuple[str, str]:
    """(folder or URI, version) of a checkpoint by what a person names: that place, a name of the registry, or a file of
    weights, which becomes a checkpoint in $RESNET_HOME/weights. ValueError says what is missing."""
    if name.endswith(WEIGHTS):
        return _as_checkpoint(name, network)
    if network is not None:
        raise ValueError(f"network is for files of weights ({', '.join(WEIGHTS)}): a checkpoint knows its own")
    if "://" in name or Path(name).exists():
        read_checkpoint(name)  # to say now what is wrong with it
        return (name if "://" in name else str(Path(name).resolve())), "unregistered"
    place(name)  # the sentence on names
    return tracking.resolve(name)


def _as_checkpoint(path: str, network: str | None) -> tuple[str, str]:
    """A file of weights as a checkpoint beside the others, written once; its version is the start of its SHA-256."""
    from resnet.checkpoint import Checkpoint, Progress, save
    from resnet.recipe import recipe

    model = open_weights(path, network)
    version = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
    folder = Path(home(), "weights", f"{model.network}-{version}")
    if not folder.exists():
        classes = model.classes or tuple(ImageClass(id=i, wnid=str(i), name=f"class {i}") for i in range(model.outputs))
        run = {"recipe": recipe(model.network).model_copy(update={"images": model.images}).model_dump(mode="json")}
        progress = Progress(step=0, total_steps=0, examples=0, classes=classes)
        save(folder, Checkpoint(model.weights, {}, {"mean": model.mean, "std": model.std}, run, progress))
    return str(folder), version


def read_checkpoint(where: str) -> Checkpoint:
    """A checkpoint from a folder or URI. ValueError: there is none, or it is damaged."""
    from resnet.checkpoint import load

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
            Path(temporary, entry.name).write_bytes(folder.read(entry.name))
        return load(temporary)


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


def open_weights(path: str, network: str | None) -> Model:
    """Weights with torchvision's keys, from its .pth or a .safetensors file, with torchvision's mean and std."""
    import torch

    from resnet.protocols import Model

    if network is None:
        raise ValueError(f"network must say what {path} holds, e.g. --network imagenet-resnet50-B-v1.5")
    weights = _unwrapped(_read(path), path)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) * 255 for values in (TORCHVISION_MEAN, TORCHVISION_STD))
    outputs = weights["fc.weight"].shape[0]
    names = imagenet_classes.names() if outputs == 1000 else {}
    classes = tuple(ImageClass(id=i, wnid=wnid, name=name) for i, (wnid, name) in enumerate(names.items())) or None
    model = Model(path, network, weights, mean, std, TORCHVISION, classes)
    model.build()  # now, and not on a worker, is the time to find that they do not fit
    return model


def _read(path: str) -> dict[str, Any]:
    """Tensors by name. Nothing in the file can run code: safetensors, or torch's reader of tensors alone."""
    import torch
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise ValueError(f"no file of weights at {path}")
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise ValueError(f"{path} holds no weights that can be read safely: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _unwrapped(found: Any, path: str) -> dict[str, Tensor]:
    """The network's own weights: torchvision's training scripts wrap them in "model", DDP prefixes "module."."""
    for key in ("model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not any(str(name).endswith("fc.weight") for name in found):
        raise ValueError(f"{path} holds no weights of a residual network: it has no fc.weight")
    return {str(name).removeprefix("module."): tensor for name, tensor in found.items()}


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
