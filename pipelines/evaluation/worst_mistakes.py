"""The answers that were wrong with the highest scores, as pictures, with where the network looked."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.shards.row_groups import Split
from pipelines.stream.augmentation import center_or_black

if TYPE_CHECKING:
    from resnet.evaluation.scorer import Model

SHOWN = 192  # pixels of a picture's side in a page
COLOURS = "inferno"
COVER = 0.45  # of a picture by the colours at their strongest


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class. output: of the network; picture: PNG of the crop beside the crop
    under the map of the class that was answered."""

    key: str
    label: int
    output: int
    score: float
    score_of_label: float
    picture: bytes


def worst_mistakes(
    model: Model, split: Split, wrong: Sequence[int], outputs: np.ndarray, scores: np.ndarray, of_label: np.ndarray
) -> list[Mistake]:
    """Pictures of some images. wrong: their places in the split; outputs: (N,) the network's answers of all images,
    scores: (N,) theirs, of_label: (N,) those of the labels."""
    found = []
    rows = _rows(split, wrong)
    for start in range(0, len(wrong), 16):
        part = wrong[start : start + 16]
        crops = [center_or_black(rows[place][0], model.images) for place in part]
        maps = _maps(model, np.stack(crops), outputs[np.asarray(part)])
        for place, crop, seen in zip(part, crops, maps, strict=True):
            _, label, key = rows[place]
            told = float(scores[place]), float(of_label[place])
            found.append(Mistake(key, label, int(outputs[place]), *told, _png(crop, seen)))
    return found


def _rows(split: Split, places: Sequence[int]) -> dict[int, tuple[bytes, int, str]]:
    """Image, label and key of some places of a split; each row group is read once."""
    starts = split.starts()
    groups = {place: int(np.searchsorted(starts, place, side="right")) - 1 for place in places}
    found = {}
    for group in sorted(set(groups.values())):
        rows = split.read(group, ("image", "label", "key"))
        for place in (p for p in places if groups[p] == group):
            i = place - int(starts[group])
            found[place] = rows["image"][i], int(rows["label"][i]), rows["key"][i]
    return found


def _maps(model: Model, crops: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    import torch

    from resnet.evaluation.class_activation import activation_maps
    from resnet.training.step import Normalize

    pixels = Normalize(model.mean, model.std)(torch.from_numpy(crops))
    return activation_maps(model.build(), pixels, torch.from_numpy(outputs))


def _png(crop: np.ndarray, seen: np.ndarray) -> bytes:
    """Both pictures side by side. seen: (S, S) in [0, 1]."""
    from matplotlib import colormaps
    from PIL import Image

    colours = colormaps[COLOURS](seen)[..., :3] * 255
    cover = COVER * seen[..., None]
    under = (crop * (1 - cover) + colours * cover).astype(np.uint8)
    image = Image.fromarray(np.concatenate([crop, under], axis=1))
    target = io.BytesIO()
    image.resize((2 * SHOWN, SHOWN), Image.Resampling.BICUBIC).save(target, "PNG")
    return target.getvalue()
