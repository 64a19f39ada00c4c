"""Mean average precision of detections as COCO counts it, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from resnet.dense.detectors import Detections
from resnet.dense.targets import Boxes


class AveragePrecision(NamedTuple):
    """In percent. mean: over IoU thresholds 0.5, 0.55, ..., 0.95 and classes; at_50, at_75: at one threshold;
    by_class: at_50 of each class, NaN for a class without an object."""

    mean: float
    at_50: float
    at_75: float
    by_class: tuple[float, ...]


def average_precision(found: Sequence[Detections], wanted: Sequence[Boxes], num_classes: int) -> AveragePrecision:
    """Of the detections in some images. wanted: the objects of each image; ignored ones neither count nor cost."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = _results(found)
    truth: Any = COCO()  # its annotations say of neither attribute nor parameter what they may be
    truth.dataset = _truth(wanted, num_classes)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results) if results else COCO(), "bbox")
        if not results:
            return AveragePrecision(0.0, 0.0, 0.0, _without_detections(wanted, num_classes))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision: Any = evaluation.eval["precision"]  # thresholds, recalls, classes, areas, most detections
    at_50 = precision[0, :, :, 0, -1]
    by_class = tuple(float(100 * column.mean()) if (column > -1).all() else float("nan") for column in at_50.T)
    mean, at_50, at_75 = (float(100 * value) for value in evaluation.stats[:3])
    return AveragePrecision(mean, at_50, at_75, by_class)


def _without_detections(wanted: Sequence[Boxes], num_classes: int) -> tuple[float, ...]:
    there = {int(label) for boxes in wanted for label in boxes.kept().labels}
    return tuple(0.0 if label in there else float("nan") for label in range(num_classes))


def _truth(wanted: Sequence[Boxes], num_classes: int) -> dict[str, Any]:
    """The objects in COCO's form."""
    annotations: list[dict[str, Any]] = []
    for image, boxes in enumerate(wanted):
        for box, label, ignored in zip(_sides(boxes.boxes), boxes.labels, boxes.ignored, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(ignored),
                }
            )
    images = [{"id": image} for image in range(len(wanted))]
    categories = [{"id": label} for label in range(num_classes)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _results(found: Sequence[Detections]) -> list[dict[str, Any]]:
    return [
        {"image_id": image, "category_id": int(label), "bbox": box, "score": float(score)}
        for image, each in enumerate(found)
        for box, label, score in zip(_sides(each.boxes), each.labels, each.scores, strict=True)
    ]


def _sides(boxes: np.ndarray) -> list[list[float]]:
    """Left, top, width, height."""
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    return [[float(value) for value in box] for box in sides]
