import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet.networks.architectures import FAMILIES, LAYERS, Architecture, names, parse_network


def network_or_message(name):
    try:
        return parse_network(name)
    except ValueError as error:
        return str(error)


def test_every_listed_name_parses_to_the_network_that_bears_it():
    assert len(set(names())) == len(names()) == 5 * 4 * 2 + 6 * 4
    assert all(parse_network(name).name == name for name in names())


def test_the_layers_of_a_layout_add_up_to_its_depth():
    for name in names():
        network = parse_network(name)
        layout = network.layout
        assert LAYERS[layout.block] * sum(layout.counts) + 2 == network.depth
        assert len(layout.counts) == len(FAMILIES[network.family].widths)


@pytest.mark.parametrize(
    ("short", "canonical"),
    [
        ("imagenet-resnet18", "imagenet-resnet18-A"),
        ("imagenet-resnet34", "imagenet-resnet34-A"),
        ("imagenet-resnet50", "imagenet-resnet50-B"),
        ("imagenet-resnet101", "imagenet-resnet101-B"),
        ("imagenet-resnet152-v1.5", "imagenet-resnet152-B-v1.5"),
        ("imagenet-plain50-v1.5", "imagenet-plain50-v1.5"),
        ("cifar10-resnet110", "cifar10-resnet110-A"),
        ("cifar10-plain20", "cifar10-plain20"),
    ],
)
def test_without_a_letter_the_papers_shortcut_holds(short, canonical):
    assert parse_network(short).name == canonical


@given(st.integers(1, 2000), st.sampled_from(["none", "A", "B", "C"]))
def test_any_6n_plus_2_is_a_cifar_network(n, shortcut):
    network = Architecture("cifar10", 6 * n + 2, shortcut)
    assert parse_network(network.name) == network
    assert network.layout.counts == (n, n, n)


@given(st.integers(1, 20_000).filter(lambda depth: depth < 8 or depth % 6 != 2))
def test_other_depths_are_no_cifar_network(depth):
    with pytest.raises(ValueError, match=rf"6n\+2 .* not {depth} \(nearest: \d+\)"):
        parse_network(f"cifar10-resnet{depth}")


@given(st.text(max_size=30) | st.from_regex(r"(imagenet|cifar10|mnist)-(plain|resnet)\d{1,4}(-[A-D])?(-v1\.[05])?\n?"))
@settings(max_examples=50)
def test_a_text_is_a_network_or_one_sentence(text):
    found = network_or_message(text)
    if isinstance(found, str):
        assert "\n" not in found
    else:
        assert parse_network(found.name) == found


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("resnet50", ["<family>-<plain|resnet><depth>", "'resnet50'", "did you mean 'imagenet-resnet50'"]),
        ("imagenet-resnet50-b", ["did you mean 'imagenet-resnet50-B'"]),
        ("imagenet-resnet50-B@paper", ["did you mean 'imagenet-resnet50-B'"]),
        ("cifar100-resnet20", ["imagenet or cifar10", "'cifar100'", "did you mean 'cifar10-resnet20'"]),
        ("imagenet-resnet51", ["18, 34, 50, 101 or 152", "not 51", "nearest: 50"]),
        ("cifar10-resnet54", ["6n+2", "not 54", "nearest: 56"]),
        ("imagenet-plain34-A", ["plain", "no letter", "'A'"]),
        ("cifar10-resnet20-v1.5", ["v1.5", "imagenet", "cifar10"]),
        ("imagenet-resnet050", ["'imagenet-resnet050'"]),
        ("vgg16", ["<family>", "'vgg16'"]),
    ],
)
def test_a_wrong_name_is_told_what_is_allowed(wrong, words):
    with pytest.raises(ValueError, match=r"^network ") as caught:
        parse_network(wrong)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_network_made_by_hand_is_checked_too():
    with pytest.raises(ValueError, match="shortcut must be none, A, B or C, not 'D'"):
        Architecture("imagenet", 18, "D")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="depth"):
        Architecture("imagenet", 20, "A")


def test_importing_resnet_loads_neither_torch_nor_ray():
    code = "import sys, resnet, resnet.networks.architectures, resnet.paper.published; resnet.names(); "
    code += "print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'resnet.networks.architectures'" in loaded
    assert not any(f"'{heavy}'" in loaded for heavy in ("torch", "ray", "numpy", "mlflow", "pyarrow"))
