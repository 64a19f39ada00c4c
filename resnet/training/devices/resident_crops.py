"""A decoded set on the device: its padded crops and mirror images are made there, equal to the host's bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ROOM = 4  # the set may take one part in so many of a device's free memory


class ResidentCrops:
    """A decoded split on a device, with a border around each image.

    images: (N, S, S, 3) uint8; labels: (N,) int64; border: (3,) uint8, the colour of the padding.
    """

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, pad: int, border: np.ndarray, device: torch.device
    ) -> None:
        self.size, count = images.shape[1], len(images)
        side = self.size + 2 * pad
        self.padded = torch.empty(count, side, side, 3, dtype=torch.uint8, device=device)
        self.padded[:] = torch.from_numpy(border).to(device)
        self.padded[:, pad : pad + self.size, pad : pad + self.size] = on_device(images, device)
        self.labels = on_device(labels, device)

    def batch(self, draws: Tensor, turns: bool = False) -> tuple[Tensor, Tensor]:
        """Crops (B, S, S, 3) uint8 and labels (B,). draws: (B, 5) int64, of each image its place, top and left of its
        crop, whether it is mirrored, and quarter turns; turns: whether any image is turned."""
        place, top, left, flip, quarters = draws.unbind(1)
        crops = mirrored_crops(self.padded, place, top, left, flip.bool(), self.size)
        return turned(crops, quarters) if turns else crops, self.labels[place]


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy; arrays of the object store may not be written, of which torch warns."""
    return torch.tensor(array, device=device)


def fits(examples: int, size: int, pad: int, device: torch.device) -> bool:
    """True if a device has room for a padded split beside the training."""
    free = torch.cuda.mem_get_info(device)[0]
    return examples * (size + 2 * pad) ** 2 * 3 * ROOM <= free


def mirrored_crops(padded: Tensor, index: Tensor, top: Tensor, left: Tensor, flip: Tensor, size: int) -> Tensor:
    """(B, size, size, 3) uint8 crops of padded images, some mirrored. index, top, left: (B,) int64; flip: (B,) bool."""
    span = torch.arange(size, device=padded.device)
    rows = top[:, None] + span
    columns = left[:, None] + torch.where(flip[:, None], size - 1 - span, span)
    return padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Each image turned counter-clockwise by its number of quarter turns. images: (B, S, S, 3); turns: (B,) int64."""
    for quarters in (1, 2, 3):
        wanted = (turns == quarters)[:, None, None, None]
        images = torch.where(wanted, torch.rot90(images, quarters, (1, 2)), images)
    return images
