"""Files of weights by others, read without running any code of theirs: .pth, .pth.tar, .pt, .bin, .ckpt, .safetensors.

A file, or a folder as Hugging Face's hub has it, on a local disk, in a bucket (s3://, gs://, abfs://) or on the web.
The JSON files beside it (config.json, preprocessor_config.json) come along: they say what the weights are.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pathlib
import struct
import urllib.error
import urllib.request
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any
from urllib.parse import urlsplit

from safetensors import SafetensorError

from pipelines.storage import Folder

# What readers of damaged files throw: torch's reads a pickle's instructions one by one and believes each.
DAMAGED = (SafetensorError, UnpicklingError, struct.error, EOFError, RuntimeError, LookupError, TypeError, ValueError)
SUFFIXES = (".pth", ".pth.tar", ".pt", ".bin", ".ckpt", ".safetensors")
IN_A_FOLDER = ("model.safetensors", "pytorch_model.bin")  # Hugging Face's names
CONFIGS = ("config.json", "preprocessor_config.json")
TIMEOUT = 60.0  # seconds without a byte from a web server


@dataclass(frozen=True)
class WeightFile:
    """Contents of a file, the SHA-256 of its bytes, its name, and the JSON files beside it by their names."""

    content: Any
    sha256: str
    name: str
    configs: dict[str, dict[str, Any]]


def is_weights(place: str) -> bool:
    """True if a name means weights of others: by the file's suffix, or a folder of Hugging Face's.

    Checkpoints of ours have config.json never, and run.json always.
    """
    path = urlsplit(place).path if "://" in place else place
    if path.endswith(SUFFIXES):
        return not _is_folder(place)
    if "://" in place and not place.startswith("file://"):
        return False
    folder = pathlib.Path(path)
    return (folder / "config.json").is_file() and not (folder / "run.json").is_file()


def _is_folder(place: str) -> bool:
    return "://" not in place and pathlib.Path(place).is_dir()


def read_weights(place: str) -> WeightFile:
    """Read a file of weights. ValueError: there is none, or it cannot be read without running code."""
    folder, _, name = place.partition("?")[0].rstrip("/").rpartition("/")
    options = f"?{place.partition('?')[2]}" if "?" in place else ""
    if not place.partition("?")[0].endswith(SUFFIXES) or _is_folder(place):
        folder = place.rstrip("/")
        name = next((n for n in IN_A_FOLDER if (pathlib.Path(folder) / n).is_file()), IN_A_FOLDER[0])
    data = read_bytes(folder or ".", name, options)
    if data is None:
        raise ValueError(f"no file of weights at {shown_place(place)}")
    configs = {}
    for other in CONFIGS:
        beside = read_bytes(folder or ".", other, options, required=False)
        try:
            found = json.loads(beside) if beside else None
        except ValueError:
            found = None
        if isinstance(found, dict):
            configs[other] = found
    return WeightFile(_load(data, name, place), hashlib.sha256(data).hexdigest(), name, configs)


def read_bytes(folder: str, name: str, options: str, required: bool = True) -> bytes | None:
    """A file's bytes, or None where there is no such file. required: what else goes wrong is a ValueError."""
    try:
        if folder.startswith(("http://", "https://")):
            with urllib.request.urlopen(f"{folder}/{name}{options}", timeout=TIMEOUT) as answer:
                return answer.read()
        return Folder(f"{folder}{options}").read(name)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    except urllib.error.HTTPError as error:
        if error.code in (403, 404, 410) or not required:
            return None
        raise ValueError(
            f"weights at {shown_place(folder)}/{name} cannot be read: {error.code} {error.reason}"
        ) from None
    except OSError as error:
        if not required:
            return None
        raise ValueError(f"weights at {shown_place(folder)}/{name} cannot be read: {_first_line(error)}") from None


def shown_place(place: str) -> str:
    """A place without credentials and options."""
    if "://" not in place:
        return place
    parts = urlsplit(place)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _load(data: bytes, name: str, place: str) -> Any:
    """Tensors by name, in whatever stands around them. Nothing in the file can run code: safetensors, or torch's reader
    of tensors and plain values, which knows besides only what _harmless names."""
    import torch
    from safetensors.torch import load

    try:
        if name.endswith(".safetensors"):
            return load(data)
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise ValueError(f"{shown_place(place)} holds no weights that can be read safely: {_reason(error)}") from None


def _harmless() -> list[Any]:
    """Classes that training programs keep beside weights and that only hold values: argparse's Namespace (torchvision,
    timm), paths, NumPy's scalars."""
    import numpy as np

    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")]
    return [argparse.Namespace, pathlib.PosixPath, pathlib.PurePosixPath, scalar, np.dtype, *kinds]


def _reason(error: BaseException) -> str:
    """The line that says which class is refused, or the first one."""
    lines = str(error).splitlines()
    named = next((line for line in lines if "GLOBAL" in line), None)
    if named is None:
        return _first_line(error)
    return (
        f"it holds an object, {named.partition('GLOBAL ')[2].split(' ')[0] or 'of an unknown class'}, which would run"
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
