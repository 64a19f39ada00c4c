"""A checkpoint as batched inference, in plain torch.

The network is changed for speed where the answer stays the same to rounding: each batch normalisation is folded into
its convolution, memory is channels_last, convolutions run in bfloat16 where the hardware multiplies it natively, and on
a CPU the quickest engine computes them (serve/inference/engines/choose.py).
`deviation` says how far the probabilities are from those of the untouched float32 network.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from resnet.evaluation.feature_distance import DISTANCE, FeatureDistance, read_distance
from resnet.evaluation.model_figures import FIGURES, ModelFigures, read_figures
from resnet.image_class import ImageClass
from resnet.images.crops.evaluation_crops import center_crop
from resnet.networks.resnet import ResNet
from resnet.recipes.recipe_settings import Interpolation
from resnet.retrieval.vector_index import weights_sha256
from resnet.training.checkpoint import CLASSIFICATION, Checkpoint, load_checkpoint
from resnet.training.step import PRECISIONS, native_precision, require_device, set_products
from serve.inference import checkpoint_files
from serve.inference.engines import onnx_int8
from serve.inference.engines.choose import choose
from serve.inference.engines.cuda_graphs import TURN, Graphs


@dataclass(frozen=True)
class Prediction:
    """A class and its probability. found: the probability reaches the class's threshold; None: it has none."""

    image_class: ImageClass
    probability: float
    found: bool | None = None


@dataclass(frozen=True)
class Answer:
    """The network's output for one image. probabilities: (K,); embedding: (C,) pooled features; float32.

    distance: from the training images; None: no distance score was kept beside the checkpoint.
    """

    probabilities: np.ndarray
    embedding: np.ndarray
    distance: float | None = None


def fetch_checkpoint(path: str) -> Checkpoint:
    """A checkpoint from a folder or URI. ValueError: there is none, or it cannot be read."""
    with checkpoint_files.local(path) as folder:
        return load_checkpoint(folder)


def fetch_figures(path: str, outputs: int) -> ModelFigures | None:
    """The figures beside a checkpoint, where there are any. ValueError: they are damaged, or another network's."""
    with checkpoint_files.local(path, (FIGURES,)) as folder:
        figures = read_figures(folder)
    unknown = [] if figures is None else [each.id for each in figures.classes if each.id >= outputs]
    if unknown:
        raise ValueError(f"{FIGURES} of {path} must be of a network with {outputs} outputs, got output {unknown[0]}")
    return figures


def fetch_distance(path: str, features: int) -> FeatureDistance | None:
    """The distance score beside a checkpoint, where there is one. ValueError: it is damaged, or another network's."""
    with checkpoint_files.local(path, (DISTANCE,)) as folder:
        found = read_distance(folder)
    if found is not None and len(found.whitening) != features:
        theirs = len(found.whitening)
        raise ValueError(f"{DISTANCE} of {path} must be of a network with {features} features, got {theirs}")
    return found


def fold_batch_norm(module: nn.Module) -> None:
    """Put every batch normalisation into the convolution before it, in place; inference only."""
    for child in module.children():
        fold_batch_norm(child)
    for (name, convolution), (following, norm) in itertools.pairwise(list(module.named_children())):
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(convolution, norm))
            setattr(module, following, nn.Identity())


def folded(net: ResNet, dtype: torch.dtype) -> ResNet:
    """The network, changed into what an engine computes: no batch normalisation, `dtype`, channels_last."""
    net.eval()
    fold_batch_norm(net)
    # torch's stubs have no overload for two of these at once
    return net.to(dtype).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class ServedNetwork(nn.Module):
    """Images to probabilities and pooled features: normalisation, the folded network, softmax.

    Pooling, the classifier and softmax stay in float32: they cost nothing, and rounding there shows in the answer.
    """

    def __init__(self, checkpoint: Checkpoint, precision: str, device: torch.device, threads: int) -> None:
        super().__init__()
        self.normalize = checkpoint.normalize()
        self.dtype = PRECISIONS[precision]
        plain = folded(checkpoint.network(), self.dtype)
        side = checkpoint.recipe.images.for_evaluation().size
        self.body, self.engine = (plain, "torch") if device.type == "cuda" else choose(plain, side, threads)
        self.classifier = nn.Linear(plain.fc.in_features, plain.fc.out_features)
        self.classifier.load_state_dict({k: checkpoint.model[f"fc.{k}"] for k in ("weight", "bias")})

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images: (N, H, W, 3), uint8 or floats in [0, 255]. Probabilities (N, K), pooled features (N, C); float32."""
        pixels = self.normalize(images).to(self.dtype)
        features = self.body.features(pixels).float().mean((2, 3))
        return self.classifier(features).softmax(1), features


class Classifier:
    """Batched inference of one checkpoint. ValueError where the folder holds none.

    `size`: side of the network's square input; `shorter_side`: of the image before that is cut out, in pixels;
    `interpolation`: how it is resized to that; `grey_range`: of grey images of more than 8 bits, as in training;
    `classes`; `precision`: float32, bfloat16 or int8; `engine`: what computes it; `deviation`: largest difference of a
    probability from the untouched float32 network's, on generated images; `agreement`: of int8 with float32, measured
    at export; `figures`: of its classes, where they were kept beside the checkpoint; `distance`: the score that tells
    unknown pictures, where it was kept; `task`: classification here; `quality`: mAP or mIoU in percent, of other tasks.
    """

    task = CLASSIFICATION
    quality: float | None = None

    def __init__(self, path: str, *, precision: str = "auto", threads: int = 1, device: str = "auto") -> None:
        """device: cuda or cpu; auto takes a GPU that is seen. In an actor of Ray it must be said: one without a GPU of
        its own sees all of its node's.
        """
        torch.set_num_threads(threads)
        gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if gpu else "cpu")
        require_device(self.device, precision)
        set_products(precision)
        checkpoint = fetch_checkpoint(path)
        self.recipe = checkpoint.recipe
        self.run: str = f"{self.recipe.name}.s{checkpoint.run.get('seed', 0)}"
        self.classes = checkpoint.progress.classes
        self.top1_error = checkpoint.progress.top1_error
        images = self.recipe.images.for_evaluation()
        self.grey_range = checkpoint.grey_range
        self.size = images.size
        self.shorter_side = images.eval_side
        self.interpolation: Interpolation = images.eval_interpolation
        self.precision = native_precision(self.device) if precision == "auto" else precision
        self._threads = threads
        self.agreement: onnx_int8.Agreement | None = None  # of int8 with float32, as it was measured at export
        if precision == "int8":
            self.device = torch.device("cpu")
            self._network, self.agreement = onnx_int8.read_int8(path, threads)
            self.engine = "ONNX Runtime"
        else:
            network = ServedNetwork(checkpoint, self.precision, self.device, threads).eval().to(self.device)
            self.engine = network.engine
            self._network = Graphs(network) if gpu else network
        self.mean, self.std = (checkpoint.pixels[name].flatten(1).mean(1).tolist() for name in ("mean", "std"))
        self.num_features = checkpoint.model["fc.weight"].shape[1]
        self.distance = fetch_distance(path, self.num_features)
        self.deviation = self._deviation(checkpoint)
        self.examples = checkpoint.examples
        self.figures = fetch_figures(path, len(self.classes))
        self._thresholds = {} if self.figures is None else self.figures.thresholds
        self.weights_sha256 = weights_sha256(checkpoint.model)  # an index of embeddings is one network's

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Description of the preprocessing for a person."""
        return {
            "shorter_side": self.shorter_side,
            "crop": self.size,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }

    def crop(self, data: bytes) -> np.ndarray:
        """The evaluation's crop of an encoded image, upright: (size, size, 3) uint8. ValueError if it is none."""
        return center_crop(data, self.size, self.shorter_side, self.grey_range, self.interpolation)

    @torch.inference_mode()
    def run_batch(self, images: Sequence[np.ndarray]) -> list[Answer]:
        """One pass through the network. images: (size, size, 3) each, uint8 or floats in [0, 255]."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # torch keeps this number for each calling thread
        with TURN if self.device.type == "cuda" else nullcontext():
            batch = torch.from_numpy(np.stack(images)).to(self.device, non_blocking=True)
            probabilities, features = (values.cpu().numpy() for values in self._network(batch))
        if self.distance is None:
            return [Answer(p, f) for p, f in zip(probabilities, features, strict=True)]
        far = self.distance.of(features).tolist()
        return [Answer(*each) for each in zip(probabilities, features, far, strict=True)]

    def predict(self, images: Sequence[bytes], top_k: int = 5) -> list[list[Prediction]]:
        """The top_k classes of each encoded image, the most probable first."""
        answers = self.run_batch([self.crop(data) for data in images])
        return [self.best(answer.probabilities, top_k) for answer in answers]

    def embed(self, images: Sequence[bytes]) -> np.ndarray:
        """Pooled features of encoded images, (N, C) float32."""
        return np.stack([a.embedding for a in self.run_batch([self.crop(data) for data in images])])

    def best(self, probabilities: np.ndarray, top_k: int) -> list[Prediction]:
        """The top_k classes, the most probable first; equal ones by id. probabilities: (K,)."""
        top_k = min(top_k, len(probabilities))
        least = np.partition(probabilities, -top_k)[-top_k]  # to sort a thousand for five takes 0.1 ms
        among = np.flatnonzero(probabilities >= least)
        order = among[np.argsort(-probabilities[among], kind="stable")][:top_k]
        limits = self._thresholds
        if not limits:
            return [Prediction(self.classes[i], float(probabilities[i])) for i in order]
        best = [(int(i), float(probabilities[i])) for i in order]
        return [Prediction(self.classes[i], p, p >= limits[i] if i in limits else None) for i, p in best]

    @property
    def tensors(self) -> list[tuple[str, str, list[int]]]:
        """Outputs of the Open Inference Protocol: name, datatype, shape. -1: of any length."""
        return [
            ("probabilities", "FP32", [-1, len(self.classes)]),
            ("embedding", "FP32", [-1, self.num_features]),
        ]

    def stacked(self, answers: Sequence[Any]) -> dict[str, np.ndarray]:
        """The outputs as tensors over several images."""
        return {name: np.stack([getattr(answer, name) for answer in answers]) for name, _, _ in self.tensors}

    @torch.inference_mode()
    def _deviation(self, checkpoint: Checkpoint) -> float:
        """Largest difference of a probability from the untouched float32 network's, over 8 generated images."""
        rng = np.random.default_rng(0)
        coarse = torch.from_numpy(rng.uniform(0, 255, (8, 3, 8, 8)).astype(np.float32))
        smooth = nn.functional.interpolate(coarse, (self.size, self.size), mode="bicubic").clamp(0, 255)
        images = smooth.permute(0, 2, 3, 1).contiguous()
        exact = checkpoint.network()(checkpoint.normalize()(images)).softmax(1)
        ours = np.stack([answer.probabilities for answer in self.run_batch(list(images.numpy()))])
        return float(np.abs(ours - exact.numpy()).max())
