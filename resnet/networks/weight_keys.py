"""Names of weights as others store them -> torchvision's, which are ours: wrappers, prefixes, Hugging Face's names.

torchvision and timm have the same names for these networks. Around them stand what training programs add: a dictionary
(`model`, `state_dict`), DDP's `module.`, torch.compile's `_orig_mod.`, Lightning's `model.`, in any nesting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from resnet.networks.resnet import ResNet

WRAPPERS = ("model", "state_dict", "model_state_dict", "state_dict_ema", "model_ema", "net", "weights")
ADDED = {"module", "model", "_orig_mod", "net", "network"}  # names of attributes under which programs keep a network
NAMED = 3  # names of each kind in a sentence
HUGGING_FACE = (
    (r"^resnet\.embedder\.embedder\.convolution\.", "conv1."),
    (r"^resnet\.embedder\.embedder\.normalization\.", "bn1."),
    (r"^classifier\.1\.", "fc."),
)
HF_BLOCK = re.compile(
    r"^resnet\.encoder\.stages\.(\d+)\.layers\.(\d+)\.(shortcut|layer\.\d+)\.(convolution|normalization)\.(.+)$"
)


def torchvision_weights(found: Any) -> dict[str, Tensor]:
    """Weights by torchvision's names, of whatever a file of weights holds. ValueError: no weights of such a network."""
    flat = _without_compile(_inner(found))
    if any(name.endswith("resnet.embedder.embedder.convolution.weight") for name in flat):
        return _from_hugging_face(flat)
    prefix = _prefix(flat)
    return {name.removeprefix(prefix): tensor for name, tensor in flat.items() if name.startswith(prefix)}


def _inner(found: Any) -> Mapping[str, Tensor]:
    """The dictionary of tensors within its wrappers."""
    import torch

    for _ in range(8):
        if not isinstance(found, Mapping):
            break
        tensors = {str(k): v for k, v in found.items() if isinstance(v, torch.Tensor)}
        if any(name.endswith(".weight") for name in tensors):
            return tensors
        inner = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            what = ", ".join(str(key) for key in list(found)[:NAMED]) or "nothing"
            raise ValueError(f"it has no fc.weight, but {what}")
        found = inner
    raise ValueError(f"it has no fc.weight, but a {type(found).__name__}")


def _without_compile(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torch.compile stands in for a module anywhere in a network."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in weights.items()}


def _prefix(weights: Mapping[str, Tensor]) -> str:
    """The prefix of the network's own names, e.g. `model.module.`. ValueError: there is no network, or several."""
    ends = "fc.weight"
    found = {name.removesuffix(ends) for name in weights if name == ends or name.endswith(f".{ends}")}
    found = sorted((p for p in found if f"{p}conv1.weight" in weights), key=lambda p: (len(p), p))
    if not found:
        names = ", ".join(list(weights)[:NAMED]) or "nothing"
        raise ValueError(f"it has no fc.weight and conv1.weight, but {len(weights)} tensors such as {names}")
    usual = [prefix for prefix in found if set(prefix.split(".")[:-1]) <= ADDED]
    if len(usual or found) > 1 and not usual:
        raise ValueError(f"it must hold one network, got {len(found)}, below {' and '.join(found)}")
    return (usual or found)[0]


def _from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' ResNetForImageClassification."""
    first = next(name for name in weights if name.endswith("resnet.embedder.embedder.convolution.weight"))
    outer = first.removesuffix("resnet.embedder.embedder.convolution.weight")
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith(outer):
            renamed[_hugging_face_name(name.removeprefix(outer))] = tensor
    return renamed


def _hugging_face_name(name: str) -> str:
    for pattern, ours in HUGGING_FACE:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name)
    match = HF_BLOCK.match(name)
    if match is None:
        return name
    stage, block, part, kind, rest = match.groups()
    if part == "shortcut":
        inner = f"downsample.{0 if kind == 'convolution' else 1}"
    else:
        number = int(part.removeprefix("layer.")) + 1
        inner = f"{'conv' if kind == 'convolution' else 'bn'}{number}"
    return f"layer{int(stage) + 1}.{block}.{inner}.{rest}"


def misfit(net: ResNet, weights: Mapping[str, Tensor]) -> str | None:
    """Differences between weights and a network's names and shapes, counted, with a few names each; None if they fit.

    num_batches_tracked is no weight: files without it are as good.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items() if _counts(name)}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items() if _counts(name)}
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    shapes = [f"{n} is {_by(given[n])}, not {_by(wanted[n])}" for n in wanted if n in given and given[n] != wanted[n]]
    parts = []
    for names, what in ((missing, "are missing"), (unknown, "are unknown"), (shapes, "have another shape")):
        if names:
            parts.append(f"{len(names)} of {len(wanted)} {what} ({_few(names)})")
    return "; ".join(parts) or None


def _counts(name: str) -> bool:
    return not name.endswith("num_batches_tracked")


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _few(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
