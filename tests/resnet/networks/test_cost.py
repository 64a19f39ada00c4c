from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnet import build, names
from resnet.networks import cost
from resnet.networks.architectures import parse_network
from resnet.paper.__main__ import architectures
from resnet.paper.published import TABLE1, TABLE6

PLAIN = [name for name in names() if "plain" in name and "1202" not in name and "v1.5" not in name]


def projections(name):
    return sum("downsample" in key and isinstance(m, nn.Conv2d) for key, m in cost.on_meta(name).named_modules())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("imagenet-resnet18-B", 11_689_512),
        ("imagenet-resnet34-B", 21_797_672),
        ("imagenet-resnet50-B", 25_557_032),
        ("imagenet-resnet101-B", 44_549_160),
        ("imagenet-resnet152-B", 60_192_808),
        ("cifar10-resnet20-A", 269_722),
        ("cifar10-resnet32-A", 464_154),
        ("cifar10-resnet44-A", 658_586),
        ("cifar10-resnet56-A", 853_018),
        ("cifar10-resnet110-A", 1_727_962),
        ("cifar10-resnet1202-A", 19_421_274),
    ],
)
def test_parameters(name, parameters):
    assert cost.parameters(cost.on_meta(name)) == parameters


@pytest.mark.parametrize(
    ("name", "multiply_adds", "printed"),
    [
        ("imagenet-resnet18-A", 1_794_805_760, 1.8),
        ("imagenet-resnet18-B", 1_814_073_344, 1.8),
        ("imagenet-resnet34-A", 3_644_493_824, 3.6),
        ("imagenet-resnet50-B", 3_857_973_248, 3.9),  # the paper prints 3.8, which is cut and not rounded
        ("imagenet-resnet101-B", 7_570_194_432, 7.6),
        ("imagenet-resnet152-B", 11_282_415_616, 11.3),
        ("imagenet-resnet50-B-v1.5", 4_089_184_256, 4.1),
    ],
)
def test_multiply_adds(name, multiply_adds, printed):
    assert cost.count(name).multiply_adds == multiply_adds
    assert round(multiply_adds / 1e9, 1) == printed


def test_multiply_adds_are_table_1s_to_its_last_digit():
    ours = {row.network: cost.count(row.network).multiply_adds for row in TABLE1 if row.network}
    assert all(abs(ours[row.network] - row.multiply_adds) < 0.06e9 for row in TABLE1 if row.network)


def test_34_layers_cost_18_percent_of_vgg_19():
    printed = {row.method: row.multiply_adds for row in TABLE1}
    with torch.device("meta"):
        vgg19 = cost.multiply_adds(torchvision.models.vgg19().eval(), 224)
    assert round(vgg19 / 1e9, 1) == printed["VGG-19"] / 1e9
    assert int(100 * cost.count("imagenet-resnet34-A").multiply_adds / vgg19) == 18
    assert cost.count("imagenet-resnet152-B").multiply_adds < printed["VGG-16"]


@pytest.mark.parametrize("name", ["cifar10-resnet20-B", "imagenet-resnet50-C", "imagenet-plain34"])
def test_multiply_adds_are_half_the_operations_that_torch_counts(name):
    net = build(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    assert counter.get_total_flops() == 2 * cost.count(name, size=64).multiply_adds
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize("name", [*PLAIN, "imagenet-plain50-v1.5"])
def test_option_a_costs_nothing_over_plain(name):
    padded = replace(parse_network(name), shortcut="A").name
    assert cost.count(padded, size=32) == cost.count(name, size=32)


def test_the_options_differ_in_their_projections():
    assert [projections(f"imagenet-resnet34-{letter}") for letter in "ABC"] == [0, 3, 16]
    assert [projections(f"imagenet-resnet50-{letter}") for letter in "ABC"] == [0, 4, 16]
    assert [projections(f"cifar10-resnet20-{letter}") for letter in "ABC"] == [0, 2, 9]


@pytest.mark.parametrize("name", [*PLAIN, "cifar10-resnet1202-A", "imagenet-resnet152-B", "imagenet-resnet34-C"])
def test_a_network_has_as_many_weight_layers_as_its_name_says(name):
    layers = (key for key, m in cost.on_meta(name).named_modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert sum("downsample" not in key for key in layers) == parse_network(name).depth


def test_table_6_prints_our_parameters_rounded():
    for row in TABLE6:
        if row.network and row.parameters:
            digits = len(f"{row.parameters / 1e6:g}".partition(".")[2])
            ours = cost.parameters(cost.on_meta(row.network))
            assert round(ours / 1e6, digits) == row.parameters / 1e6, row


def test_the_printed_tables_fit_a_terminal_and_say_the_papers_words():
    text = architectures()
    lines = text.splitlines()
    assert text.isascii()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if not line.startswith((" ", "-"))][1:] == [
        "conv1", "pool", "conv2_x", "conv3_x", "conv4_x", "conv5_x", "fc",
    ]  # fmt: skip
    cells = [line[67:] for line in lines if line.startswith(("conv4_x", " "))][4:7]
    assert cells == ["1x1, 256", "3x3, 256 x36", "1x1, 1024"]
