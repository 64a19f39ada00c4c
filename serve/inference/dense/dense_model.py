"""A checkpoint of a detector or segmenter as inference: whole images in, boxes or a mask out, in their own pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from resnet.dense.dense_checkpoint import DenseCheckpoint, load_dense
from resnet.dense.dense_images import shorter_side_to
from resnet.dense.dense_recipe import DetectionRecipe
from resnet.dense.detectors import Detections, as_input
from resnet.dense.segmenters import class_masks
from resnet.images.decode import decode
from serve.inference import checkpoint_files
from serve.inference.classifier import Classifier

PRECISIONS = ("auto", "float32")
HUES = ((0, 0, 0), (230, 75, 53), (77, 187, 213), (0, 160, 135), (60, 84, 136), (243, 155, 127), (132, 145, 180))


class WholeImage(NamedTuple):
    """An upright image as the network takes it, and its own size. pixels: (H, W, 3), uint8 or floats in [0, 255]."""

    pixels: np.ndarray
    height: int
    width: int


class FoundObjects(NamedTuple):
    """The objects of an image, the surest first, in its own pixels."""

    height: int
    width: int
    found: Detections


class FoundMask(NamedTuple):
    """The class of each pixel of an image. mask: (height, width) uint8."""

    mask: np.ndarray


class DenseModel(Classifier):
    """Inference of one checkpoint, image by image, in float32: sizes differ, and a padded batch would change answers.

    `task`: detection or segmentation; `quality`: mAP or mIoU in percent at training time. The rest is Classifier's.
    """

    def __init__(self, path: str, *, precision: str = "auto", threads: int = 1, device: str = "auto") -> None:
        """device: as of Classifier. ValueError where the folder holds no such checkpoint."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be {' or '.join(PRECISIONS)} for boxes and masks, got {precision}")
        torch.set_num_threads(threads)
        gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        self.device, self._threads = torch.device("cuda" if gpu else "cpu"), threads
        with checkpoint_files.local(path) as folder:
            checkpoint: DenseCheckpoint = load_dense(folder)
        recipe: Any = checkpoint.recipe  # of another kind than a classification's, with a network as that has
        self.recipe, self.task, self.quality = recipe, recipe.task, checkpoint.progress.quality
        self.run = f"{recipe.name}.s{checkpoint.run.get('seed', 0)}"
        self.classes, self.top1_error = checkpoint.progress.classes, None
        self.size = self.shorter_side = recipe.size
        self.interpolation, self.grey_range = "bilinear", None
        self.precision, self.engine, self.deviation, self.agreement = "float32", "torch", 0.0, None
        self.mean, self.std = (checkpoint.pixels[name].flatten(1).mean(1).tolist() for name in ("mean", "std"))
        self.num_features, self.examples, self.figures, self._thresholds = 0, None, None, {}
        self.distance = None
        self._dense = checkpoint.network().to(self.device)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Description of the preprocessing for a person. crop 0: the whole image."""
        return super().preprocessing | {"crop": 0}

    def crop(self, data: bytes) -> Any:
        """A whole image, upright: as it is for a detector, resized for a segmenter. ValueError if it is none."""
        pixels = decode(data)
        height, width = pixels.shape[:2]
        if not isinstance(self.recipe, DetectionRecipe):
            pixels = shorter_side_to(pixels, self.size)
        return WholeImage(pixels, height, width)

    @torch.inference_mode()
    def run_batch(self, images: Sequence[Any]) -> list[Any]:
        """FoundObjects or FoundMask of each image: WholeImage, or pixels (H, W, 3), floats or uint8 in [0, 255]."""
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)  # torch keeps this number for each calling thread
        whole = [i if isinstance(i, WholeImage) else WholeImage(i, i.shape[0], i.shape[1]) for i in images]
        return [self._objects(image) if self.task == "detection" else self._mask(image) for image in whole]

    def _objects(self, image: WholeImage) -> FoundObjects:
        (found,) = self._dense([as_input(image.pixels, self.device)])
        return FoundObjects(image.height, image.width, Detections.of(found))

    def _mask(self, image: WholeImage) -> FoundMask:
        return FoundMask(class_masks(self._dense, image.pixels, image.height, image.width, self.device))

    def check_itself(self) -> None:
        """ValueError: its answers on a generated image are no numbers."""
        image = np.random.default_rng(0).uniform(0, 255, (self.size, self.size, 3)).astype(np.float32)
        (answer,) = self.run_batch([image])
        if isinstance(answer, FoundObjects) and not all(np.isfinite(part).all() for part in answer.found):
            raise ValueError("its answers are no numbers")

    @property
    def tensors(self) -> list[tuple[str, str, list[int]]]:
        """Outputs of the Open Inference Protocol: name, datatype, shape. -1: of any length."""
        if self.task == "segmentation":
            return [("mask", "UINT8", [-1, -1, -1])]
        return [
            ("boxes", "FP32", [-1, -1, 4]),
            ("labels", "INT64", [-1, -1]),
            ("scores", "FP32", [-1, -1]),
            ("count", "INT64", [-1]),
        ]

    def stacked(self, answers: Sequence[Any]) -> dict[str, np.ndarray]:
        """The outputs as tensors over several images: boxes are filled up to the most of an image, labels with -1.

        ValueError: masks have several sizes.
        """
        if self.task == "segmentation":
            if len({answer.mask.shape for answer in answers}) > 1:
                raise ValueError("images must be of one size for one tensor of masks, send them one by one")
            return {"mask": np.stack([answer.mask for answer in answers])}
        counts = [len(answer.found.labels) for answer in answers]
        most, found = max(counts), [answer.found for answer in answers]
        boxes, scores = np.zeros((len(found), most, 4), np.float32), np.zeros((len(found), most), np.float32)
        labels = np.full((len(found), most), -1, np.int64)
        for row, (each, count) in enumerate(zip(found, counts, strict=True)):
            boxes[row, :count], labels[row, :count], scores[row, :count] = each
        return {"boxes": boxes, "labels": labels, "scores": scores, "count": np.asarray(counts, np.int64)}

    def row(self, answer: Any) -> dict[str, Any]:
        """An answer as a row of a table: box, id, name and score of each object, or the mask as a PNG."""
        if isinstance(answer, FoundMask):
            return {"mask": palette_png(answer.mask)}
        boxes, labels, scores = answer.found
        names = [self.classes[label].name for label in labels]
        return {"box": boxes.tolist(), "id": labels.tolist(), "name": names, "score": scores.tolist()}


def palette_png(mask: np.ndarray) -> bytes:
    """A mask as a PNG whose values are ids of classes, with a palette that a person can see."""
    image, stream = Image.fromarray(mask, "P"), io.BytesIO()
    image.putpalette([part for number in range(256) for part in HUES[number % len(HUES)]])
    image.save(stream, "PNG")
    return stream.getvalue()
