"""CIFAR-10 on a device, as bytes; crops and mirror images are made there, from draws that are the engine's own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.training.cifar import Cifar10
from pipelines.stream.example_order import Order
from resnet.images.crops.padded_crops import draw_pad_crop
from resnet.images.pixel_statistics import pixel_statistics
from resnet.recipes.recipe_settings import Images
from resnet.training.devices.resident_crops import ResidentCrops
from resnet.training.step import Normalize


class Resident:
    """CIFAR-10 on a device, shared by all lanes."""

    def __init__(self, data: Cifar10, device: torch.device) -> None:
        self.data, self.device = data, device
        self.labels = torch.from_numpy(data.train.labels).to(device)
        self.train_images = torch.from_numpy(data.train.images).to(device)
        self.val_images = torch.from_numpy(data.val.images).to(device)
        self.val_labels = torch.from_numpy(data.val.labels).to(device)
        self.planners = ThreadPoolExecutor(2, thread_name_prefix="plan")
        self._crops: dict[int, ResidentCrops] = {}
        self._statistics: dict[bool, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def examples(self) -> int:
        """Training images."""
        return len(self.data.train.labels)

    def crops(self, pad: int) -> ResidentCrops:
        """Training images with zeros around them."""
        if pad not in self._crops:
            border, (images, labels, _) = np.zeros(3, np.uint8), self.data.train
            self._crops[pad] = ResidentCrops(images, labels, pad, border, self.device)
        return self._crops[pad]

    def normalize(self, per_pixel: bool) -> Normalize:
        """Of the training set."""
        if per_pixel not in self._statistics:
            self._statistics[per_pixel] = pixel_statistics(self.data.train.images, per_pixel)
        mean, std = (torch.from_numpy(array) for array in self._statistics[per_pixel])
        return Normalize(mean, std).to(self.device)


class Plan(NamedTuple):
    """An epoch, step by step: image, top and left of its crop in the padded image, mirrored; all (steps, batch)."""

    image: np.ndarray
    top: np.ndarray
    left: np.ndarray
    flip: np.ndarray


def plan(order: Order, images: Images, epoch: int) -> Plan:
    """The same examples, crops and mirror images as pipelines.stream.in_memory.resident_batches has."""
    assert images.pad is not None  # policy pad-crop
    if images.border != "black":
        raise ValueError(f"images.border must be black in one process, got {images.border}")
    starts = np.cumsum([0, *order.rows])
    shares = [order.share(epoch, window, 0, 1, skip) for window, skip in order.remaining(epoch, 0)]
    index = np.concatenate([starts[groups] + rows for groups, rows in shares])
    offsets, flips = draw_pad_crop(np.random.default_rng((order.seed, epoch, 1)), order.examples, images.pad)
    flips = flips if images.flip else np.zeros_like(flips)
    return Plan(index, offsets[index, 0], offsets[index, 1], flips[index])
