"""The map of a class against Grad-CAM by gradients, as its paper defines it."""

import numpy as np
import torch
from torch.nn import functional as F

from resnet.evaluation.class_activation import activation_maps
from resnet.networks.resnet import build


def test_the_map_is_grad_cam_by_gradients() -> None:
    torch.manual_seed(0)
    net = build("imagenet-resnet18", 5).eval()
    pixels, outputs = torch.randn(4, 3, 96, 64), torch.tensor([4, 0, 2, 1])
    features = net.features(pixels)
    features.retain_grad()
    logits = net.fc(features.mean((2, 3)))
    logits[torch.arange(4), outputs].sum().backward()
    assert features.grad is not None
    importance = features.grad.mean((2, 3))  # equation 1 of Selvaraju et al.
    expected = torch.einsum("nchw,nc->nhw", features, importance).relu()  # equation 2
    assert (expected.amax((1, 2)) > 0).sum() >= 2, "the test says something"
    expected = (expected / expected.amax((1, 2), keepdim=True)).nan_to_num(0).detach()  # where all is 0
    sized = F.interpolate(expected[:, None], (96, 64), mode="bilinear", align_corners=False)[:, 0]
    found = activation_maps(net, pixels, outputs)
    assert found.shape == (4, 96, 64)
    np.testing.assert_allclose(found, sized.numpy(), atol=1e-5)
    assert found.max() <= 1


def test_an_output_that_nothing_speaks_for_has_no_place() -> None:
    torch.manual_seed(0)
    net = build("imagenet-resnet18", 2).eval()
    with torch.no_grad():
        net.fc.weight.copy_(-net.fc.weight.abs())  # features are not negative
    assert not activation_maps(net, torch.randn(1, 3, 64, 64), torch.tensor([1])).any()
