"""Weights of others are evaluated as their makers evaluate them, and their stride is not taken on trust."""

from typing import Any

import pytest
from torchvision.models import ResNet50_Weights

from pipelines.models import preprocessing
from pipelines.models.preprocessing import (
    ImagePreprocessing,
    class_names,
    parse_option,
    preprocessing_of,
    settle_network,
)
from pipelines.models.weight_files import WeightFile


def named(name: str, configs: dict[str, Any] | None = None, sha256: str = "0" * 64) -> WeightFile:
    return WeightFile({}, sha256, name, configs or {})


TIMM = {"architecture": "resnet50", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.95,
        "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}  # fmt: skip


HF = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3,
      "size": {"shortest_edge": 224}, "crop_pct": 0.875}  # fmt: skip


V2 = ResNet50_Weights.IMAGENET1K_V2


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (named("resnet50-0676ba61.pth"), (256, 224, "bilinear")),
        (named("resnet50-11ad3fa6.pth"), (232, 224, "bilinear")),
        (named("renamed.pth", sha256=f"11ad3fa6{'0' * 56}"), (232, 224, "bilinear")),
        (named("resnet50_a1_0-14fe96d1.pth"), (235, 224, "bicubic")),
        (named("resnet50_a3_0-59cae1ef.pth"), (168, 160, "bicubic")),
        (named("model.safetensors", {"config.json": TIMM}), (235, 224, "bicubic")),
        (named("model.safetensors", {"preprocessor_config.json": HF}), (256, 224, "bicubic")),
        (named("anything.pth"), (256, 224, "bilinear")),
    ],
)
def test_weights_are_evaluated_as_their_makers_do(file: WeightFile, expected: tuple[int, int, str]) -> None:
    images = preprocessing_of(file, None).images
    assert (images.eval_side, images.size, images.eval_interpolation) == expected
    asked = preprocessing_of(file, "240,192,bicubic").images
    assert (asked.eval_side, asked.size, asked.eval_interpolation) == (240, 192, "bicubic"), "the option wins"


def test_mean_and_std_are_the_weights_own_too() -> None:
    assert preprocessing_of(named("m.safetensors", {"config.json": TIMM}), "232").mean == (0.5, 0.5, 0.5)
    for wrong in ("big", "232,224,lanczos", "232,"):
        with pytest.raises(ValueError, match=r"preprocess must be RESIZE\[,CROP\[,bilinear\|bicubic\]\]"):
            parse_option(wrong)
    with pytest.raises(ValueError, match="preprocess must resize to at least the crop, 224, got 200"):
        _ = parse_option("200").images


def test_the_stride_that_no_shape_tells_is_not_taken_on_trust() -> None:
    v2 = named("resnet50-11ad3fa6.pth")
    assert settle_network(None, v2, "x") == "imagenet-resnet50-B-v1.5"
    with pytest.raises(ValueError, match=r"must be imagenet-resnet50-B-v1\.5 for x, got imagenet-resnet50-B: the same"):
        settle_network("imagenet-resnet50-B", v2, "x")
    assert settle_network("imagenet-resnet18-B", named("resnet18-f37072fd.pth"), "x") == "imagenet-resnet18-B"
    bottleneck = {"model_type": "resnet", "depths": [3, 4, 6, 3], "layer_type": "bottleneck"}
    assert settle_network(None, named("m", {"config.json": bottleneck}), "x") == "imagenet-resnet50-B-v1.5"
    early = bottleneck | {"downsample_in_bottleneck": True}
    assert settle_network(None, named("m", {"config.json": early}), "x") == "imagenet-resnet50-B"
    basic = {"model_type": "resnet", "depths": [3, 4, 6, 3], "layer_type": "basic"}
    assert preprocessing.network_of(named("m", {"config.json": basic})) == "imagenet-resnet34-B-v1.5"


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"id2label": {"0": "cat", "1": "dog"}}, ["cat", "dog"]),
        ({"label_names": ["cat", "dog"]}, ["cat", "dog"]),
        ({"pretrained_cfg": {"label_names": ["cat", "dog"]}}, ["cat", "dog"]),
        ({"id2label": {"0": "cat"}}, None),
        ({"id2label": {"0": "cat", "2": "dog"}}, None),
        ({"label_names": ["cat", "dog", "emu"]}, None),
        ({"label_names": ["cat", 1]}, None),
        ({}, None),
    ],
)
def test_names_of_classes_count_where_there_is_one_for_each_output(config: dict, names: list[str] | None) -> None:
    assert class_names(named("m", {"config.json": config}), 2) == names


@pytest.mark.parametrize("size", [160, 224, 288, 320])
def test_the_shorter_side_that_is_asked_for_is_the_one_that_is_taken(size: int) -> None:
    """A recipe keeps it for size 224 and scales it back: rounded twice, at most a pixel beside."""
    for resize in range(size, size + 80):
        found = ImagePreprocessing(resize=resize, size=size, source="x").images
        assert abs(found.eval_side - resize) <= max(1, size / 448)
        assert found.size == size


def test_a_filter_that_no_crop_has_is_named() -> None:
    config = {"pretrained_cfg": {"crop_pct": 0.95, "interpolation": "lanczos"}}
    with pytest.raises(ValueError, match=r"of config\.json must be one of bilinear, bicubic, got lanczos"):
        preprocessing_of(named("m", {"config.json": config}), None)


def test_a_preprocessing_is_told_in_a_line() -> None:
    assert parse_option("235,224,bicubic").told == "resized to 235 (bicubic), the middle 224 x 224: as asked for"
