"""The images that weights of others expect: resize, crop, filter, mean and std, as their makers evaluate them.

By a JSON file beside the weights (timm's pretrained_cfg, Hugging Face's preprocessor_config.json), else by
torchvision's own table and file names or the hash in them, else by timm's file names, else torchvision's first recipe.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import Field

from pipelines.models.weight_files import WeightFile
from resnet.frozen import Frozen
from resnet.networks import architectures
from resnet.recipes.recipe_settings import Images, Interpolation

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's ImageClassification preset
DEPTHS = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}  # Table 1's bottlenecks and 18
RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, in Hugging Face's files
# timm's "ResNet strikes back" weights by their file names: side, crop_pct (timm/models/resnet.py)
TIMM_NAMES = re.compile(r"resnet(?:18|34|50|101|152)_a([123])_0-[0-9a-f]{8}\.pth")
TIMM_SIDES = {"1": 224, "2": 224, "3": 160}
TORCHVISION_NAMES = re.compile(r"resnet(18|34|50|101|152)-([0-9a-f]{8})\.pth")

# Options of the jobs that open files of weights
NetworkOption = Annotated[
    str | None, Field(description="what a file of weights holds, e.g. imagenet-resnet50-B-v1.5 for torchvision's")
]
PreprocessOption = Annotated[
    str | None,
    Field(description="RESIZE[,CROP[,bicubic]] for a file of weights that does not say, e.g. 232; else its own"),
]


class ImagePreprocessing(Frozen):
    """Processing of an image before the network sees it. resize: shorter side in pixels; size: of the square that is
    cut out; mean, std: of pixels in [0, 1]; source: where this is from."""

    resize: Annotated[int, Field(ge=8, le=4096)]
    size: Annotated[int, Field(ge=8, le=1024)] = 224
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    source: str

    @property
    def images(self) -> Images:
        """As a recipe says it. ValueError: a shorter side below the crop."""
        if self.resize < self.size:
            raise ValueError(f"preprocess must resize to at least the crop, {self.size}, got {self.resize}")
        return Images(
            size=self.size,
            policy="random-resized-crop",
            area=(0.08, 1.0),
            # a length for size 224, which scales with the size: the one whose scaled value is nearest
            eval_shorter_side=round(self.resize * 224 / self.size),
            eval_interpolation=self.interpolation,
            mean="per-channel",
        )

    @property
    def told(self) -> str:
        """For a person."""
        side = self.images.eval_side
        return f"resized to {side} ({self.interpolation}), the middle {self.size} x {self.size}: {self.source}"


def parse_option(text: str) -> ImagePreprocessing:
    """RESIZE[,CROP[,INTERPOLATION]], e.g. 232 or 235,224,bicubic. ValueError."""
    match = re.fullmatch(r"(\d+)(?:,(\d+))?(?:,([a-z]+))?", text.replace(" ", ""))
    if match is None or (match[3] or "bilinear") not in get_args(Interpolation):
        raise ValueError(
            f"preprocess must be RESIZE[,CROP[,{'|'.join(get_args(Interpolation))}]], e.g. 235,224,bicubic, got {text}"
        )
    fields: dict[str, Any] = {"resize": int(match[1]), "source": "as asked for"}
    if match[2]:
        fields["size"] = int(match[2])
    if match[3]:
        fields["interpolation"] = match[3]
    return ImagePreprocessing(**fields)


def preprocessing_of(file: WeightFile, asked: str | None) -> ImagePreprocessing:
    """The preprocessing that weights expect. asked: the option, which wins but for mean and std."""
    found = (
        _of_timm(file.configs.get("config.json", {}))
        or _of_hugging_face(file.configs.get("preprocessor_config.json", {}))
        or _of_torchvision(file)
        or _of_timm_name(file.name)
        or ImagePreprocessing(resize=256, source="torchvision's first recipe, as nothing says otherwise")
    )
    if asked is None:
        return found
    return parse_option(asked).model_copy(update={"mean": found.mean, "std": found.std})


def _of_timm(config: Mapping[str, Any]) -> ImagePreprocessing | None:
    """config.json of timm's models on the hub: input_size, crop_pct, interpolation, mean, std."""
    known = config.get("pretrained_cfg")
    if not isinstance(known, Mapping) or "crop_pct" not in known:
        return None
    size = int(known.get("input_size", (3, 224, 224))[-1])
    how = known.get("interpolation", "bilinear")
    if how not in get_args(Interpolation):
        raise ValueError(f"interpolation of config.json must be one of {', '.join(get_args(Interpolation))}, got {how}")
    return ImagePreprocessing(
        resize=math.floor(size / float(known["crop_pct"])),  # as timm rounds
        size=size,
        interpolation=how,
        mean=tuple(known.get("mean", MEAN)),
        std=tuple(known.get("std", STD)),
        source="timm's config.json beside the weights",
    )


def _of_hugging_face(config: Mapping[str, Any]) -> ImagePreprocessing | None:
    """preprocessor_config.json. ConvNextImageProcessor, which ResNets have: resized to size / crop_pct below 384."""
    if not config.get("do_normalize") or "image_mean" not in config:
        return None
    sides = config.get("size", 224)
    side = sides if isinstance(sides, int) else sides.get("shortest_edge") or sides.get("height")
    crops = config.get("crop_size")
    if crops is not None:
        resize, size = side, crops if isinstance(crops, int) else crops["height"]
    elif config.get("crop_pct", 224 / 256) and side < 384:
        resize, size = int(side / (config.get("crop_pct") or 224 / 256)), side
    else:
        resize = size = side
    return ImagePreprocessing(
        resize=resize,
        size=size,
        interpolation=RESAMPLE.get(config.get("resample", 2), "bilinear"),
        mean=tuple(config["image_mean"]),
        std=tuple(config["image_std"]),
        source="preprocessor_config.json beside the weights",
    )


def _of_torchvision(file: WeightFile) -> ImagePreprocessing | None:
    """torchvision's own table of weights, by the hash that its file names hold: resize 232 for IMAGENET1K_V2."""
    match = TORCHVISION_NAMES.fullmatch(file.name)
    tags = {file.sha256[:8], *([match[2]] if match else [])}
    from torchvision import models

    for depth in (18, 34, 50, 101, 152):
        for weights in getattr(models, f"ResNet{depth}_Weights"):
            named = TORCHVISION_NAMES.fullmatch(weights.url.rpartition("/")[2])
            if named is not None and named[2] in tags:
                how = weights.transforms()
                return ImagePreprocessing(
                    resize=how.resize_size[0],
                    size=how.crop_size[0],
                    interpolation=how.interpolation.value,
                    mean=tuple(how.mean),
                    std=tuple(how.std),
                    source=f"torchvision's ResNet{depth}_Weights.{weights.name}",
                )
    return None


def _of_timm_name(name: str) -> ImagePreprocessing | None:
    match = TIMM_NAMES.fullmatch(name)
    if match is None:
        return None
    size = TIMM_SIDES[match[1]]
    source = f"timm's a{match[1]} recipe, by the file's name"
    return ImagePreprocessing(resize=math.floor(size / 0.95), size=size, interpolation="bicubic", source=source)


def network_of(file: WeightFile) -> str | None:
    """The network that weights say they are of, or None."""
    config = file.configs.get("config.json", {})
    if config.get("model_type") == "resnet" and "depths" in config:
        bottleneck = config.get("layer_type", "bottleneck") == "bottleneck"
        depth = DEPTHS.get(tuple(config["depths"]))
        depth = 34 if depth == 50 and not bottleneck else depth
        early = bottleneck and config.get("downsample_in_bottleneck", False)
        return None if depth is None else f"imagenet-resnet{depth}-B{'' if early else '-v1.5'}"
    named = re.fullmatch(r"(?:tv_)?resnet(18|34|50|101|152)", str(config.get("architecture", "")))
    named = (
        named or TORCHVISION_NAMES.fullmatch(file.name) or re.match(r"resnet(18|34|50|101|152)_a[123]_0-", file.name)
    )
    return f"imagenet-resnet{named[1]}-B-v1.5" if named else None


def settle_network(asked: str | None, file: WeightFile, place: str) -> str:
    """The network of weights: as asked, or as they say. ValueError: neither says it, or only their strides differ.
    v1 and v1.5 have the same shapes: the wrong one would answer, and wrongly."""
    known = network_of(file)
    if asked is None:
        if known is None:
            raise ValueError(f"network must say what {place} holds, e.g. --network imagenet-resnet50-B-v1.5")
        return known
    if known is not None:
        mine, theirs = architectures.parse_network(asked), architectures.parse_network(known)
        alike = (mine.depth, mine.shortcut) == (theirs.depth, theirs.shortcut)
        if alike and mine.v15 != theirs.v15 and theirs.layout.block == "bottleneck":
            raise ValueError(f"network must be {known} for {place}, got {asked}: the same shapes, another stride")
    return asked


def class_names(file: WeightFile, outputs: int) -> list[str] | None:
    """Names of classes that the weights' own config.json gives, in order; None where it gives none that fit."""
    config = file.configs.get("config.json", {})
    labels = config.get("id2label")
    if isinstance(labels, Mapping):
        names = [labels.get(str(i)) for i in range(outputs)]
    else:
        names = config.get("label_names") or config.get("pretrained_cfg", {}).get("label_names") or []
    fits = len(names) == outputs and all(isinstance(name, str) for name in names)
    return [str(name) for name in names] if fits else None
