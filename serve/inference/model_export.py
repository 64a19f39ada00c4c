"""A checkpoint as files for other programs: safetensors, ONNX, torch.export, and int8 for CPUs.

Each file is read back and compared with the checkpoint on real images before the folder gets its name. The names and
shapes are those of the endpoint's Open Inference Protocol: pixels (N, 3, S, S) float32 in [0, 255], RGB, gives
probabilities (N, K) and embedding (N, C). N is free.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from resnet.frozen import Frozen
from resnet.host.cpu_quota import usable_cores
from resnet.images.checks.image_limits import CorruptImage
from resnet.images.crops.evaluation_crops import center_crop
from resnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from serve.inference.engines.onnx_int8 import AGREEMENT, INT8, Agreement, Session

Format = Literal["safetensors", "onnx", "pt2", "int8"]
ALLOWED = 1e-4  # largest difference of a probability: float32 in another order of additions
BATCH = 16  # images of one pass while verifying
CALIBRATE = 64  # images that set int8's ranges, at most; the others judge it


class Exported(Frozen):
    """Files of an export. differences: the largest one of a probability from the checkpoint's, by format."""

    out: str
    formats: tuple[str, ...]
    images: int
    differences: dict[str, float]
    agreement: Agreement | None = None


class ExportedNetwork(nn.Module):
    """The checkpoint's float32 network with its normalisation and softmax."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.normalize = checkpoint.normalize()
        self.body = checkpoint.network()
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels: (N, 3, S, S) in [0, 255]. Probabilities (N, K), pooled features (N, C)."""
        embedding = self.body.embed(self.normalize(pixels.permute(0, 2, 3, 1)))
        return self.body.fc(embedding).softmax(1), embedding


Run = Callable[[np.ndarray], np.ndarray]


def export(checkpoint: Checkpoint, out: Path, formats: Sequence[Format], images: Sequence[bytes]) -> Exported:
    """Write a folder that does not exist yet: a checkpoint without momentum, the formats, export.json.

    ValueError: it exists, or there are too few images. ArithmeticError: a file does not compute what it should; then
    nothing is left.
    """
    if out.exists():
        raise ValueError(f"out must not exist yet, got {out}")
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    pixels = _pixels(checkpoint, images)
    network = ExportedNetwork(checkpoint)
    expected = _over(pixels, lambda batch: _torch(network, batch))
    part = out.with_name(f"{out.name}.part-{os.getpid()}")
    try:
        save_checkpoint(part, dataclasses.replace(checkpoint, optimizer={}))
        written = _write(network, part, formats, pixels, expected)
        exported = Exported(out=str(out), formats=tuple(formats), images=len(pixels), **written)
        (part / "export.json").write_text(exported.model_dump_json(indent=2))
        part.replace(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return exported


def _write(
    network: ExportedNetwork, part: Path, formats: Sequence[Format], pixels: np.ndarray, expected: np.ndarray
) -> dict[str, Any]:
    """The files, each verified: what export.json says of them."""
    reload = ExportedNetwork(load_checkpoint(part))
    checks: dict[str, Run] = {"safetensors": lambda batch: _torch(reload, batch)}
    size = pixels.shape[2]
    program = _program(network, size) if {"onnx", "pt2", "int8"} & set(formats) else None
    if program is not None and "pt2" in formats:
        torch.export.save(program, part / "model.pt2")
        module = torch.export.load(part / "model.pt2").module()
        checks["pt2"] = lambda batch: _torch(module, batch)
    if program is not None and {"onnx", "int8"} & set(formats):
        _write_onnx(program, part / "model.onnx")
        checks["onnx"] = Session((part / "model.onnx").read_bytes()).probabilities
    differences = {name: _compare(name, run, pixels, expected) for name, run in checks.items()}
    agreement = _quantize(part, pixels, expected) if "int8" in formats else None
    if "onnx" not in formats:
        (part / "model.onnx").unlink(missing_ok=True)
        differences.pop("onnx", None)
    return {"differences": differences, "agreement": agreement}


def _pixels(checkpoint: Checkpoint, images: Sequence[bytes]) -> np.ndarray:
    """The network's input of those images that can be decoded, (N, 3, S, S) float32."""
    policy = checkpoint.recipe.images.for_evaluation()
    crops = []
    for data in images:
        try:
            shape = (policy.size, policy.eval_side)
            crops.append(center_crop(data, *shape, checkpoint.grey_range, policy.eval_interpolation))
        except CorruptImage as error:
            logging.getLogger("serve").warning("an image is left out: %s", error)
    if len(crops) < 2:
        raise ValueError(f"images must hold at least 2 that can be decoded, got {len(crops)}")
    return np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2), np.float32)


def _program(network: ExportedNetwork, size: int) -> torch.export.ExportedProgram:
    """The network as a graph with a free batch."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    return torch.export.export(network, (torch.zeros(2, 3, size, size),), dynamic_shapes={"pixels": {0: batch}})


def _write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts among each other
        names: dict[str, Any] = {"input_names": ["pixels"], "output_names": ["probabilities", "embedding"]}
        torch.onnx.export(program, (), path, external_data=False, verbose=False, **names)


@torch.inference_mode()
def _torch(module: nn.Module, batch: np.ndarray) -> np.ndarray:
    return module(torch.from_numpy(batch))[0].numpy()


def _over(pixels: np.ndarray, run: Run) -> np.ndarray:
    """Probabilities of all images, in batches of several sizes: 1, then 16 and what is left."""
    first = run(np.ascontiguousarray(pixels[:1]))
    rest = [run(np.ascontiguousarray(pixels[i : i + BATCH])) for i in range(1, len(pixels), BATCH)]
    return np.concatenate([first, *rest])


def _compare(name: str, run: Run, pixels: np.ndarray, expected: np.ndarray) -> float:
    worst = float(np.abs(_over(pixels, run) - expected).max())
    if not worst <= ALLOWED:
        raise ArithmeticError(f"{name} differs from the checkpoint by up to {worst:.2g}, allowed {ALLOWED:g}")
    return worst


def _quantize(part: Path, pixels: np.ndarray, expected: np.ndarray) -> Agreement:
    """Write int8.onnx and int8.json: ranges from the first images, the agreement with float32 on the others."""
    calibration = min(CALIBRATE, len(pixels) // 2)
    quantize(part / "model.onnx", part / INT8, pixels[:calibration])
    found = _over(pixels[calibration:], Session((part / INT8).read_bytes()).probabilities)
    agreement = Agreement.of(found, expected[calibration:], calibration)
    (part / AGREEMENT).write_text(agreement.model_dump_json(indent=2))
    return agreement


def quantize(source: Path, target: Path, pixels: np.ndarray) -> None:
    """ONNX float32 -> int8 weights by channel and uint8 activations, by the extremes of real images (static)."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[np.ndarray] = iter(np.array_split(pixels, -(-len(pixels) // BATCH)))

        def get_next(self) -> Any:
            batch = next(self.batches, None)
            return None if batch is None else {"pixels": batch}

    folded = target.with_suffix(".float")
    quiet = logging.getLogger()
    level, quiet.level = quiet.level, logging.ERROR  # it writes hints to the root logger
    try:
        quant_pre_process(source, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        quiet.level = level
        folded.unlink(missing_ok=True)
