"""The network in int8 on a CPU, by ONNX Runtime, and its agreement with float32; jobs/export_model.py writes both."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from resnet.frozen import Frozen, sentence
from serve.inference import checkpoint_files

INT8, AGREEMENT = "int8.onnx", "int8.json"


class Agreement(Frozen):
    """int8 against float32 on real images that did not set its ranges. top1_agreement: percent of images with the same
    best class; the differences are of probabilities, over all images and classes."""

    images: int
    calibration_images: int
    top1_agreement: float
    mean_difference: float
    largest_difference: float

    @classmethod
    def of(cls, found: np.ndarray, expected: np.ndarray, calibration_images: int) -> Agreement:
        """found, expected: (N, K) probabilities of int8 and of float32."""
        differences = np.abs(found - expected)
        return cls(
            images=len(found),
            calibration_images=calibration_images,
            top1_agreement=float((found.argmax(1) == expected.argmax(1)).mean() * 100),
            mean_difference=float(differences.mean()),
            largest_difference=float(differences.max()),
        )


class Session:
    """An exported ONNX file in ONNX Runtime. Called with images as the endpoint's Network is."""

    def __init__(self, content: bytes, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the cores are others' too
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (N, S, S, 3) in [0, 255]. Probabilities (N, K), pooled features (N, C)."""
        pixels = images.permute(0, 3, 1, 2).float().contiguous().numpy()
        probabilities, embedding = self._session.run(["probabilities", "embedding"], {"pixels": pixels})
        return torch.from_numpy(probabilities), torch.from_numpy(embedding)

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """pixels: (N, 3, S, S) float32 in [0, 255]. (N, K)."""
        (found,) = self._session.run(["probabilities"], {"pixels": pixels})
        return np.asarray(found)


def read_int8(checkpoint: str, threads: int) -> tuple[Session, Agreement]:
    """The int8 network beside a checkpoint, in its folder or at its URI. ValueError: there is none."""
    with checkpoint_files.local(checkpoint, (INT8, AGREEMENT)) as folder:
        for name in (INT8, AGREEMENT):
            if not (folder / name).is_file():
                raise ValueError(
                    f"precision int8 needs {name} beside the checkpoint, got none in {checkpoint}; "
                    "jobs/export_model.py MODEL --formats int8 writes such a folder"
                )
        content = {name: (folder / name).read_bytes() for name in (INT8, AGREEMENT)}
    try:
        return Session(content[INT8], threads), Agreement.model_validate_json(content[AGREEMENT])
    except ValidationError as error:
        raise ValueError(f"{AGREEMENT} of {checkpoint} is damaged: {sentence(error)}") from None
    except Exception as error:  # ONNX Runtime's own classes, which it does not export
        raise ValueError(f"{INT8} of {checkpoint} cannot be read: {(str(error).splitlines() or ['?'])[0]}") from None
