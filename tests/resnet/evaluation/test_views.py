import numpy as np
import pytest
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from resnet.evaluation.views import PROTOCOLS, SCALES, default_protocol, views
from resnet.recipes.named import recipe

IMAGENET = recipe("imagenet-resnet18").images
SMALL = IMAGENET.model_copy(update={"size": 64})
CIFAR = recipe("cifar10-resnet20").images


@pytest.mark.parametrize(("height", "width"), [(300, 400), (500, 375), (256, 256), (96, 130)])
def test_ten_crops_are_torchvisions(picture, height, width):
    data, image = picture(height, width)
    resized = v2.Resize(256)(image)
    five = views(data, "10-crop", IMAGENET)
    expected = [np.asarray(crop) for crop in v2.TenCrop(224)(resized)]
    assert len(five) == 5
    for ours, theirs in zip(five, expected[:5], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # torchvision crops the mirrored image: its top left is the mirror image of our top right
    mirrored = [five[i][:, ::-1] for i in (1, 0, 3, 2)]
    for ours, theirs in zip(mirrored, expected[5:9], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if (resized.width - 224) % 2 == 0:  # else its centre of the mirrored image lies a pixel beside
        np.testing.assert_array_equal(five[4][:, ::-1], expected[9])


@pytest.mark.parametrize("images", [IMAGENET, SMALL])
def test_one_crop_is_torchvisions_resize_and_centre_crop(picture, images):
    data, image = picture(333, 517)
    (crop,) = views(data, "1-crop", images)
    side = round(256 * images.size / 224)
    expected = tv.center_crop(tv.resize(image, [side]), [images.size, images.size])
    np.testing.assert_array_equal(crop, np.asarray(expected))


def test_multi_scale_views_are_the_whole_image_at_the_papers_shorter_sides(picture):
    data, image = picture(300, 400)
    found = views(data, "multi-scale", IMAGENET)
    assert [min(view.shape[:2]) for view in found] == list(SCALES) == [224, 256, 384, 480, 640]
    for view, scale in zip(found, SCALES, strict=True):
        np.testing.assert_array_equal(view, np.asarray(tv.resize(image, [scale])))
    assert [min(v.shape[:2]) for v in views(data, "multi-scale", SMALL)] == [64, 73, 110, 137, 183]


def test_single_is_cifars_own_image(picture):
    data, image = picture(32, 32)
    (view,) = views(data, "single", CIFAR)
    np.testing.assert_array_equal(view, np.asarray(image))


def test_the_default_is_what_training_is_evaluated_with(picture):
    from pipelines.stream.augmentation import center

    data, _ = picture(123, 77)
    for images in (SMALL, CIFAR):
        (view,) = views(data, default_protocol(images), images)
        np.testing.assert_array_equal(view, center(data, images))


@pytest.mark.parametrize("protocol", PROTOCOLS[1:])
def test_a_recipe_with_another_shorter_side_is_tested_with_it(picture, protocol):
    data, _ = picture(300, 400)
    other = SMALL.model_copy(update={"eval_shorter_side": 232})
    same = [
        np.array_equal(a, b) for a, b in zip(views(data, protocol, SMALL), views(data, protocol, other), strict=True)
    ]
    assert all(same) == (protocol == "multi-scale")
