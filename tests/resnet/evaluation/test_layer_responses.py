import numpy as np
import pytest
import torch

from resnet.evaluation.layer_responses import layer_responses, measured_layers, response_std, watching
from resnet.networks.resnet import build
from resnet.training.step import Normalize


def by_hand(net, x):
    """Outputs of batch norm after each 3x3 convolution of a net of basic blocks, without any hook."""
    found = []

    def response(conv, bn, y):
        found.append(bn(conv(y)).clone())
        return found[-1].clone()

    x = response(net.conv1, net.bn1, x).relu()
    for stage in net.stages:
        for block in net.get_submodule(stage):
            y = response(block.conv1, block.bn1, x).relu()
            y = response(block.conv2, block.bn2, y)
            x = (y if block.downsample is None else y + block.downsample(x)).relu()
    return found


@pytest.mark.parametrize("network", ["cifar10-resnet14-A", "cifar10-plain14", "cifar10-resnet8-C"])
@torch.inference_mode()
def test_responses_are_the_outputs_of_batch_norm_before_relu_and_addition(lively, network):
    net = lively(build(network))
    normalize = Normalize(torch.full((3, 32, 32), 120.0), torch.full((3, 1, 1), 60.0))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8))
    found = layer_responses(net, normalize, [images[:4], images[4:7], images[7:]])
    expected = [float(output.std(unbiased=False)) for output in by_hand(net, normalize(images))]
    assert len(found) == net.network.depth - 1  # every weight layer but the classifier; projections are 1x1
    np.testing.assert_allclose([response.std for response in found], expected, rtol=1e-5)
    assert response_std(found) == pytest.approx(np.mean(expected), rel=1e-5)


def test_layers_go_from_input_to_output_and_are_the_3x3_ones():
    assert list(measured_layers(build("cifar10-plain8"))) == [
        "conv1",
        *(f"layer{stage}.0.conv{number}" for stage in (1, 2, 3) for number in (1, 2)),
    ]
    bottlenecks = measured_layers(build("imagenet-resnet50-B"))
    assert len(bottlenecks) == 3 + 4 + 6 + 3
    assert {name.rpartition(".")[2] for name in bottlenecks} == {"conv2"}


@torch.inference_mode()
def test_sums_are_kept_for_each_image_and_hooks_are_removed(lively):
    net = lively(build("cifar10-resnet8-A"))
    images = torch.randn(6, 3, 32, 32)
    before = net(images)
    with watching(net) as whole:
        assert torch.equal(net(images), before)
    with watching(net) as parts:
        for image in images:
            net(image[None])
    np.testing.assert_allclose(np.concatenate(parts.parts), whole.parts[0], rtol=1e-4, atol=1e-2)
    assert whole.values == [16 * 32 * 32] * 3 + [32 * 16 * 16] * 2 + [64 * 8 * 8] * 2
    net(images)
    assert len(whole.parts) == 1
