import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import resnet
from resnet.networks.architectures import EXPANSION, LAYERS, parse_network
from resnet.networks.cost import on_meta
from resnet.networks.resnet import BasicBlock, Bottleneck, PaddedIdentity

EVERY_KIND = [
    "cifar10-plain8",
    "cifar10-resnet14-A",
    "cifar10-resnet14-B",
    "cifar10-resnet8-C",
    "imagenet-plain18",
    "imagenet-resnet18-C",
    "imagenet-plain50",
    "imagenet-resnet50-A",
    "imagenet-resnet50-B",
    "imagenet-resnet50-B-v1.5",
]


def perturb(net):
    """Batch normalisation away from 1 and 0, so that a parameter that goes unused is seen."""
    norms = (module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    for key, values in (item for norm in norms for item in norm.state_dict().items()):
        if key in ("weight", "running_var"):
            values.uniform_(1, 1.2)
        elif key in ("bias", "running_mean"):
            values.normal_(0, 0.1)


def logits_and_gradients(net, images):
    net.zero_grad()
    logits = net(images)
    F.cross_entropy(logits, torch.arange(len(images))).backward()
    return logits.detach(), {name: parameter.grad for name, parameter in net.named_parameters()}


def torchvisions(depth):
    """torchvision's network and ours with copies of its weights, in double precision. Ours draws none of its own."""
    torch.manual_seed(depth)
    theirs = getattr(torchvision.models, f"resnet{depth}")().double()
    perturb(theirs)
    ours = on_meta(f"imagenet-resnet{depth}-B-v1.5")
    ours.load_state_dict({name: tensor.clone() for name, tensor in theirs.state_dict().items()}, assign=True)
    return theirs, ours


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_torchvisions_weights_give_torchvisions_logits_and_gradients(depth):
    theirs, ours = torchvisions(depth)
    images = torch.randn(2, 3, 40, 40, dtype=torch.float64)
    for training in (True, False):
        expected, gradients = logits_and_gradients(theirs.train(training), images)
        logits, found = logits_and_gradients(ours.train(training), images)
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found, gradients, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("depth", [101, 152])
def test_torchvisions_weights_give_torchvisions_logits_at_depth_too(depth):
    """The blocks are those of 50 layers, whose gradients are compared; what may differ is how many there are where."""
    theirs, ours = torchvisions(depth)
    images = torch.randn(1, 3, 40, 40, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images), rtol=1e-10, atol=1e-10)


def reference(name, state, x):
    """Logits in evaluation mode, from the weights alone: the figures of the paper in the plainest form."""
    network = parse_network(name)
    kind = network.layout.block

    def conv_bn(x, conv, bn, stride):
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)
        mean, var, scale, shift = (state[f"{bn}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        standard = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return standard * scale[:, None, None] + shift[:, None, None]

    imagenet = network.family == "imagenet"
    x = conv_bn(x, "conv1", "bn1", 2 if imagenet else 1).relu()
    x = F.max_pool2d(x, 3, 2, 1) if imagenet else x
    for stage, count in enumerate(network.layout.counts, 1):
        for index in range(count):
            block = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            y = x
            for layer in range(1, LAYERS[kind] + 1):
                here = stride if layer == (2 if network.v15 and kind == "bottleneck" else 1) else 1
                y = conv_bn(y, f"{block}.conv{layer}", f"{block}.bn{layer}", here)
                y = y if layer == LAYERS[kind] else y.relu()
            changes = y.shape != x.shape
            if network.shortcut == "C" or (network.shortcut == "B" and changes):
                y = y + conv_bn(x, f"{block}.downsample.0", f"{block}.downsample.1", stride)
            elif network.shortcut != "none":
                x = F.avg_pool2d(x, 1, stride)
                y = y + torch.cat([x, x.new_zeros(len(x), y.shape[1] - x.shape[1], *x.shape[2:])], 1)
            x = y.relu()
    return x.flatten(2).mean(2) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("name", EVERY_KIND)
def test_the_network_computes_the_papers_figures(name):
    torch.manual_seed(0)
    net = resnet.build(name, num_classes=7).double().eval()
    perturb(net)
    images = torch.randn(2, 3, 33, 40, dtype=torch.float64)  # odd and not square: strides round up alike
    with torch.no_grad():
        logits, expected = net(images), reference(name, net.state_dict(), images)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["imagenet-resnet50-B", "cifar10-resnet20-A", "imagenet-plain18"])
def test_initial_weights_have_the_papers_spread(name):
    torch.manual_seed(1)
    for module in resnet.build(name).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.detach().double()
            n, expected = weight.numel(), np.sqrt(2 / weight[0].numel())
            assert abs(weight.std().item() / expected - 1) < 5 / np.sqrt(2 * n)  # 5 standard errors
            assert abs(weight.mean().item() / expected) < 5 / np.sqrt(n)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
            assert (module.weight == 1).all()
            assert not module.bias.any()


@pytest.mark.parametrize(("extra", "stride"), [(16, 2), (32, 2), (192, 1), (3, 2)])
def test_option_a_keeps_every_second_pixel_and_pads_zeros(extra, stride):
    x = np.random.default_rng(0).normal(size=(2, 16, 9, 8))
    expected = np.zeros((2, 16 + extra, -(-9 // stride), -(-8 // stride)))
    for row in range(expected.shape[2]):
        for column in range(expected.shape[3]):
            expected[:, :16, row, column] = x[:, :, row * stride, column * stride]
    np.testing.assert_array_equal(PaddedIdentity(extra, stride)(torch.from_numpy(x)).numpy(), expected)


@pytest.mark.parametrize("name", EVERY_KIND)
def test_a_residual_graph_has_one_addition_a_block_and_a_plain_graph_none(name):
    network = parse_network(name)
    graph = torch.fx.symbolic_trace(resnet.build(name)).graph
    additions = [node for node in graph.nodes if node.op == "call_function" and node.target.__name__ in ("add", "iadd")]
    assert len(additions) == (0 if network.shortcut == "none" else sum(network.layout.counts))


@pytest.mark.parametrize("name", ["cifar10-plain8", "cifar10-resnet14-A", "imagenet-resnet50-A", "imagenet-resnet18-B"])
def test_channels_last_is_kept_and_gives_the_same_numbers(name):
    torch.manual_seed(2)
    net = resnet.build(name, num_classes=5).double()
    images = torch.randn(3, 3, 40, 40, dtype=torch.float64)
    expected, gradients = logits_and_gradients(net, images)
    net = net.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    assert net.features(images).is_contiguous(memory_format=torch.channels_last)
    logits, found = logits_and_gradients(net, images)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, gradients, rtol=1e-7, atol=1e-9)


def test_option_a_keeps_channels_last():
    x = torch.randn(2, 16, 8, 8).to(memory_format=torch.channels_last)
    assert PaddedIdentity(16, 2)(x).is_contiguous(memory_format=torch.channels_last)


def test_features_embedding_and_logits_are_one_computation():
    net = resnet.build("imagenet-resnet50-B", num_classes=3).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features, embedding, logits = net.features(images), net.embed(images), net(images)
    assert features.shape == (2, net.num_features, 2, 3)
    assert net.num_features == EXPANSION["bottleneck"] * 512
    torch.testing.assert_close(embedding, F.adaptive_avg_pool2d(features, 1).flatten(1))
    torch.testing.assert_close(logits, net.fc(embedding))


@pytest.mark.parametrize("name", ["cifar10-resnet8-A", "cifar10-resnet8-C", "imagenet-resnet50-B"])
def test_zero_last_scales_start_every_block_as_its_shortcut(name):
    net = resnet.build(name, num_classes=2, zero_init_last_bn=True).eval()
    block = net.get_submodule("layer2.0")
    assert isinstance(block, BasicBlock | Bottleneck)
    assert block.downsample is not None
    x = torch.randn(2, block.conv1.in_channels, 8, 8)
    torch.testing.assert_close(block(x), F.relu(block.downsample(x)))


def test_what_would_have_no_effect_or_no_output_is_refused():
    with pytest.raises(ValueError, match="zero_init_last_bn must be False for cifar10-plain8"):
        resnet.build("cifar10-plain8", zero_init_last_bn=True)
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        resnet.build("cifar10-plain8", num_classes=0)
    with pytest.raises(AttributeError, match="it has backbone, build, names, parse"):
        _ = resnet.biuld  # pyright: ignore[reportAttributeAccessIssue]


def test_the_network_compiles_whole_and_exports():
    net = resnet.build("cifar10-resnet8-A").eval()
    images = torch.randn(3, 3, 32, 32)
    expected = net(images)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(images), expected)
    batch = torch.export.Dim("batch", min=1, max=1024)
    exported = torch.export.export(net, (images[:2],), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(images), expected)


def test_a_network_survives_pickling():
    net = resnet.build("cifar10-resnet8-B")
    again = pickle.loads(pickle.dumps(net))
    assert again.network == net.network
    torch.testing.assert_close(again.state_dict(), net.state_dict(), rtol=0, atol=0)
