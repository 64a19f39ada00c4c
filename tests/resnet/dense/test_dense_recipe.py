import pytest

from resnet.dense.dense_recipe import DetectionRecipe, SegmentationRecipe, dense_recipe
from resnet.recipes.recipe_settings import Optim


def test_a_recipe_survives_its_json():
    for recipe in (DetectionRecipe(network="imagenet-resnet18", size=320), SegmentationRecipe(head="deeplabv3")):
        assert dense_recipe(recipe.model_dump(mode="json")) == recipe


def test_names_and_lengths():
    detector = DetectionRecipe(network="imagenet-resnet18", size=400, optim=Optim(batch_size=8), epochs=2)
    assert (detector.name, detector.longer_side, detector.smallest_anchor) == (
        "imagenet-resnet18-A@faster-rcnn",
        667,
        16,
    )
    assert (detector.steps_per_epoch(205), detector.total_steps(205)) == (25, 50)
    assert SegmentationRecipe(size=256).cut == 256
    assert SegmentationRecipe(steps=7, epochs=None).total_steps(100) == 7


@pytest.mark.parametrize(
    ("kind", "fields", "sentence"),
    [
        (DetectionRecipe, {"network": "cifar10-resnet20"}, "network must be of the imagenet family"),
        (
            DetectionRecipe,
            {"head": "retinanet", "regions": 64},
            "regions has an effect with head faster-rcnn only",
        ),
        (DetectionRecipe, {"epochs": None}, "one of epochs and steps is needed"),
        (
            SegmentationRecipe,
            {"scales": (2.0, 0.5)},
            "scales must be two positive numbers, the smaller first",
        ),
        (SegmentationRecipe, {"head": "faster-rcnn"}, "head must be 'fcn' or 'deeplabv3', got 'faster-rcnn'"),
        (
            SegmentationRecipe,
            {"schedule": {"kind": "plateau", "gamma": 0.1, "patience": 2}},
            "schedule.kind must be step or cosine, got plateau",
        ),
    ],
)
def test_what_makes_no_sense_is_one_sentence(kind, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**fields)


def test_a_recipe_of_no_known_task():
    with pytest.raises(ValueError, match="task must be detection or segmentation, got None"):
        dense_recipe({"network": "imagenet-resnet18"})


def test_a_batch_larger_than_the_training_set():
    with pytest.raises(ValueError, match=r"batch_size must be at most the number of training images, 15, got 16"):
        DetectionRecipe().total_steps(15)
