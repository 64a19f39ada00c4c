"""oneDNN's fused convolutions against torch's. The whole network, for every kind of block: test_choose.py."""

import pytest
import torch
from torch import nn

from resnet.networks.resnet import build
from serve.inference.classifier import folded
from serve.inference.engines.onednn import Convolution, Fused

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (3, 1, 1), (3, 2, 1), (7, 2, 3)])
def test_a_convolution_with_its_sum_and_relu_is_torchs(kernel: int, stride: int, padding: int, bias: bool):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 16, kernel, stride, padding, bias=bias)
    fused = Convolution(plain, torch.Size((1, 8, 20, 20)))
    with torch.inference_mode():
        for count in (1, 3):  # laid out for one image, used for several
            x = torch.randn(count, 8, 20, 20).contiguous(memory_format=torch.channels_last)
            expected = plain(x)
            torch.testing.assert_close(fused(x, "none"), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(fused(x), expected.relu(), rtol=1e-4, atol=1e-4)
            shortcut = torch.randn_like(expected).contiguous(memory_format=torch.channels_last)
            added = (expected + shortcut).relu()
            found = fused.plus(x, shortcut)
            torch.testing.assert_close(found, added, rtol=1e-4, atol=1e-4)
            assert found.data_ptr() == shortcut.data_ptr()  # no memory of its own


def test_weights_that_change_later_are_not_seen():
    """They are laid out once: a network is served as it was loaded."""
    net = folded(build("cifar10-resnet8", 5), torch.float32)
    x = torch.randn(1, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        fused = Fused(net, x)
        before = fused.features(x).clone()
        net.conv1.weight.zero_()
        torch.testing.assert_close(fused.features(x), before)
        assert not torch.allclose(net.features(x), before)
