import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18
from torchvision.transforms._presets import ImageClassification
from torchvision.transforms.v2 import Resize, TenCrop
from torchvision.transforms.v2.functional import to_image

from resnet.evaluation.scorer import Model, Scorer, batches, score_map, window
from resnet.evaluation.views import views
from resnet.image_class import ImageClass
from resnet.networks.resnet import build
from resnet.recipes.named import recipe

IMAGENET = recipe("imagenet-resnet18").images
SMALL = IMAGENET.model_copy(update={"size": 64})
TORCHVISION = {"mean": torch.tensor([0.485, 0.456, 0.406]), "std": torch.tensor([0.229, 0.224, 0.225])}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Small networks gain nothing from a second thread, and on a busy machine wait for it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(lively):
    """model(seed, ...) -> a Model with weights of its own, which nobody changes."""

    @functools.cache
    def weights_of(network, outputs, seed):
        return lively(build(network, outputs), seed).state_dict()

    def make(seed=0, images=SMALL, network="imagenet-resnet18-B-v1.5", outputs=7, mean=None):
        weights = weights_of(network, outputs, seed)
        mean = TORCHVISION["mean"].reshape(3, 1, 1) * 255 if mean is None else mean
        return Model(f"m{seed}", network, weights, mean, TORCHVISION["std"].reshape(3, 1, 1) * 255, images, None)

    return make


@pytest.fixture(scope="module")
def seen(picture):
    """seen(protocol) -> views of three pictures of two shapes."""

    def make(protocol, images=SMALL):
        shapes = (90, 120), (120, 90), (90, 120)
        return [views(picture(*shape, seed=i)[0], protocol, images) for i, shape in enumerate(shapes)]

    return make


@torch.inference_mode()
def test_one_crop_logits_are_those_of_torchvisions_preset_on_the_same_weights(picture, lively):
    theirs = lively(resnet18(), 3)
    ours = Model(
        "tv",
        "imagenet-resnet18-B-v1.5",
        theirs.state_dict(),
        TORCHVISION["mean"].reshape(3, 1, 1) * 255,
        TORCHVISION["std"].reshape(3, 1, 1) * 255,
        IMAGENET,
        None,
    )
    pictures = [picture(300, 400, seed=i) for i in range(2)]
    preset = ImageClassification(crop_size=224)
    expected = theirs(torch.stack([preset(image) for _, image in pictures]))
    scorer = Scorer([ours], "1-crop")
    pixels = torch.from_numpy(np.stack([views(data, "1-crop", IMAGENET)[0] for data, _ in pictures]))
    logits = scorer.logits(scorer.nets[0], scorer.normalize[0](pixels))
    torch.testing.assert_close(logits, expected.double(), rtol=1e-4, atol=1e-4)
    scores = scorer.score([views(data, "1-crop", IMAGENET) for data, _ in pictures])
    torch.testing.assert_close(torch.from_numpy(scores), expected.double().softmax(1), rtol=1e-4, atol=1e-6)


@torch.inference_mode()
def test_ten_crop_scores_are_the_mean_over_torchvisions_ten_crops(picture, model):
    ours = model()
    net, expected = ours.build(), []
    pictures = [picture(90, 120, seed=i) for i in range(2)]
    for _, image in pictures:
        # shorter side 73 and size 64: the longer side is 97, an odd rest; its centre is mirrored by hand
        crops = [to_image(crop) for crop in TenCrop(64)(Resize(73)(image))]
        crops = torch.stack([*crops[:9], crops[4].flip(2)]).float() / 255
        mean, std = (TORCHVISION[k].reshape(3, 1, 1) for k in ("mean", "std"))
        expected.append(net((crops - mean) / std).softmax(1).mean(0))
    found = Scorer([ours], "10-crop").score([views(data, "10-crop", SMALL) for data, _ in pictures])
    np.testing.assert_allclose(found, torch.stack(expected), atol=1e-6)


@torch.inference_mode()
def test_the_score_map_is_the_network_slid_over_the_image(lively):
    """A network whose convolutions see one pixel only has no border: every place equals a crop of its own."""
    net = lively(build("imagenet-resnet18-A", 5))
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            centre = module.weight[:, :, module.kernel_size[0] // 2, module.kernel_size[1] // 2].clone()
            module.weight.zero_()
            module.weight[:, :, module.kernel_size[0] // 2, module.kernel_size[1] // 2] = centre
    net.maxpool = nn.MaxPool2d(1, stride=2)
    image = torch.randn(1, 3, 128, 192)
    found = score_map(net, image, window(net, 64))
    assert found.shape == (1, 5, 3, 5)
    for row in range(3):
        for column in range(5):
            crop = image[:, :, 32 * row : 32 * row + 64, 32 * column : 32 * column + 64]
            torch.testing.assert_close(found[:, :, row, column], net(crop), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_the_score_map_is_pooling_and_classifier_at_every_place(lively):
    net = lively(build("imagenet-resnet34-B", 4))
    image = torch.randn(2, 3, 120, 101)
    features = net.features(image)
    found = score_map(net, image, (2, 2))
    assert found.shape[2:] == (features.shape[2] - 1, features.shape[3] - 1)
    for row in range(found.shape[2]):
        for column in range(found.shape[3]):
            expected = F.linear(
                features[:, :, row : row + 2, column : column + 2].mean((2, 3)), net.fc.weight, net.fc.bias
            )
            torch.testing.assert_close(found[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "size", "side"),
    [
        ("imagenet-resnet50-B", 224, 7),
        ("imagenet-plain18", 64, 2),
        ("imagenet-resnet18", 100, 4),
        ("cifar10-plain20", 32, 8),
    ],
)
@torch.inference_mode()
def test_at_the_training_size_the_score_map_is_the_ordinary_network(lively, network, size, side):
    net = lively(build(network, 6))
    assert window(net, size) == (side, side)
    image = torch.randn(1, 3, size, size)
    torch.testing.assert_close(score_map(net, image, window(net, size))[:, :, 0, 0], net(image), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_multi_scale_scores_are_the_mean_over_the_five_scales(model, seen):
    ours = model()
    own = seen("multi-scale")
    found = Scorer([ours], "multi-scale").score(own)
    net, normalize = ours.build(), Scorer([ours], "multi-scale").normalize[0]
    for scores, scales in zip(found, own, strict=True):
        maps = [score_map(net, normalize(torch.from_numpy(view.copy())[None]), (2, 2)) for view in scales]
        expected = torch.stack([each.mean((2, 3)).softmax(1) for each in maps]).mean(0)
        np.testing.assert_allclose(scores, expected[0], atol=1e-5)
    assert len({view.shape for scales in own for view in scales}) == 10  # two orientations, five scales


@pytest.mark.parametrize("protocol", ["1-crop", "10-crop", "multi-scale"])
def test_an_ensembles_scores_are_the_mean_of_its_networks(model, seen, protocol):
    own = seen(protocol)
    alone = [Scorer([model(seed)], protocol).score(own) for seed in (0, 1)]
    together = Scorer([model(seed) for seed in (0, 1)], protocol).score(own)
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-12)
    np.testing.assert_allclose(together.sum(1), 1, rtol=1e-6)


def test_mirror_images_make_an_image_and_its_mirror_equal(model, seen):
    own = seen("1-crop")
    mirrored = [[np.ascontiguousarray(view[:, ::-1]) for view in views_] for views_ in own]
    plain, both = Scorer([model()], "1-crop"), Scorer([model()], "1-crop", mirror=True)
    np.testing.assert_allclose(both.score(own), both.score(mirrored), atol=1e-6)
    expected = (plain.score(own) + plain.score(mirrored)) / 2
    np.testing.assert_allclose(both.score(own), expected, atol=1e-6)


def test_a_per_pixel_mean_holds_for_crops_and_becomes_its_mean_at_other_sizes(model):
    mean = torch.rand(3, 64, 64) * 255
    crop, scales = (Scorer([model(mean=mean)], protocol) for protocol in ("1-crop", "multi-scale"))
    torch.testing.assert_close(crop.normalize[0].mean, mean)
    torch.testing.assert_close(scales.normalize[0].mean, mean.mean((1, 2), keepdim=True))


def test_batches_hold_views_of_one_shape_and_bounded_size():
    own = [[np.full((224, 224, 3), i, np.uint8), np.full((640, 900, 3), i, np.uint8)] for i in range(70)]
    found = list(batches(own))
    assert sorted(place for places, _ in found for place in places) == sorted([*range(70), *range(70)])
    for places, pixels in found:
        assert len(places) == len(pixels)
        assert pixels[..., 0].size <= 64 * 224 * 224
        np.testing.assert_array_equal(pixels[:, 0, 0, 0], places)
    assert [len(places) for places, _ in found] == [64, 6, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5]


def test_networks_that_cannot_be_averaged_are_refused(model):
    with pytest.raises(ValueError, match="same classes, m0 and m1 differ"):
        Scorer([model(0), model(1, outputs=8)], "1-crop")
    with pytest.raises(ValueError, match=r"images.size, got 64 of m0 and 224 of m1"):
        Scorer([model(0), model(1, images=IMAGENET)], "1-crop")
    named = [
        Model(**{**vars(model(seed)), "classes": tuple(ImageClass(id=i, wnid=f"{w}{i}", name="") for i in range(7))})
        for seed, w in ((0, "a"), (1, "b"))
    ]
    with pytest.raises(ValueError, match="same classes"):
        Scorer(named, "1-crop")
    with pytest.raises(ValueError, match="one model or more"):
        Scorer([], "1-crop")
    wrong = Model(**{**vars(model()), "network": "imagenet-resnet34-B"})
    with pytest.raises(ValueError, match="network imagenet-resnet34-B does not fit the weights of m0"):
        Scorer([wrong], "1-crop")
