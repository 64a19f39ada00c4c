"""Weights of others as their programs write them: wrapped, prefixed, renamed, and with a preprocessing of their own."""

import argparse
import functools
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models import resnet18

from pipelines.models.by_name import checkpoint_of, open_models, read_checkpoint
from resnet.networks.resnet import build

V15 = "imagenet-resnet18-B-v1.5"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return resnet18(num_classes=7).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def compiled_inside(state: State) -> State:
    """Each block compiled by itself."""
    return {re.sub(r"^(layer\d\.\d\.)", r"\1_orig_mod.", name): tensor for name, tensor in state.items()}


def hugging_face(state: State) -> State:
    """The names of transformers' ResNetForImageClassification with basic blocks, as its modules spell them."""
    renamed = {}
    for name, tensor in state.items():
        new = name
        if name.startswith(("conv1", "bn1")):
            part = "convolution" if name.startswith("conv1") else "normalization"
            new = f"resnet.embedder.embedder.{part}.{name.split('.', 1)[1]}"
        elif name.startswith("fc"):
            new = name.replace("fc", "classifier.1")
        elif name.startswith("layer"):
            stage, block, part, rest = name.split(".", 3)
            if part == "downsample":
                which, rest = rest.split(".", 1)
                inner = "shortcut." + ("convolution" if which == "0" else "normalization")
            else:
                kind = "convolution" if part.startswith("conv") else "normalization"
                inner = f"layer.{int(part[-1]) - 1}.{kind}"
            new = f"resnet.encoder.stages.{int(stage[-1]) - 1}.layers.{block}.{inner}.{rest}"
        renamed[new] = tensor
    return renamed


ARGS = argparse.Namespace(model="resnet18", lr=0.1, output=Path("out"), workers=16)
STORED: dict[str, Any] = {
    "torch.compile": lambda s: prefixed(s, "_orig_mod."),
    "compiled blocks": compiled_inside,
    "DDP around torch.compile": lambda s: prefixed(s, "module._orig_mod."),
    "torch.compile around DDP": lambda s: prefixed(s, "_orig_mod.module."),
    "Lightning": lambda s: {"state_dict": prefixed(s, "model."), "epoch": 3, "hyper_parameters": {"lr": 0.1}},
    "Lightning, DDP and torch.compile": lambda s: {"state_dict": prefixed(s, "model._orig_mod.module.")},
    "Lightning with a loss": lambda s: {"state_dict": prefixed(s, "model.") | {"loss.weight": torch.ones(7)}},
    "Lightning, another attribute": lambda s: {"state_dict": prefixed(s, "backbone.")},
    "torchvision's references": lambda s: {
        "model": s,
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1)}]},
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 3,
        "args": ARGS,
        "model_ema": prefixed(s, "module.") | {"n_averaged": torch.tensor(3)},
    },
    "timm's train.py": lambda s: {"epoch": 3, "arch": "resnet18", "state_dict": s, "args": ARGS, "metric": 71.5},
    "Hugging Face": hugging_face,
    "half precision": lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
    "without num_batches_tracked": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def logits(state: State) -> Tensor:
    theirs = resnet18(num_classes=7)
    theirs.load_state_dict(state)
    return theirs.eval()(X).detach()


FILES = [(how, ".pth") for how in STORED] + [("Lightning", ".ckpt"), ("timm's train.py", ".pth.tar")]


@pytest.mark.parametrize(("how", "suffix"), FILES)
def test_weights_in_any_wrapping_give_torchvisions_logits(
    tmp_path: Path, state: State, logits: Tensor, how: str, suffix: str
) -> None:
    torch.save(STORED[how](state), tmp_path / f"x{suffix}")
    (model,) = open_models([str(tmp_path / f"x{suffix}")], V15)
    tolerance = 0.01 if how == "half precision" else 1e-5
    torch.testing.assert_close(model.build()(X).detach(), logits, rtol=tolerance, atol=tolerance)


class Whoever:
    """Any class that a program may keep beside its weights."""


def test_an_object_that_would_run_code_is_named(tmp_path: Path, state: State) -> None:
    torch.save({"state_dict": state, "callback": Whoever()}, tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"read safely: it holds an object, \S*Whoever, which would run"):
        open_models([str(tmp_path / "x.ckpt")], V15)


HF = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3,
      "size": {"shortest_edge": 224}, "crop_pct": 0.875}  # fmt: skip


def hub_folder(folder: Path, state: State) -> Path:
    """A folder as it comes from Hugging Face's hub, of a fine-tuned network."""
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in hugging_face(state).items()}, folder / "model.safetensors")
    labels = {str(i): f"bird {i}" for i in range(7)}
    config = {"model_type": "resnet", "depths": [2, 2, 2, 2], "layer_type": "basic", "id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(HF))
    return folder


def test_a_folder_of_the_hub_says_all_itself_and_becomes_a_checkpoint(
    tmp_path: Path, state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = hub_folder(tmp_path / "hub", state)
    place, version = checkpoint_of(str(folder))
    assert version == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
    said = capsys.readouterr().err
    assert (
        "imagenet-resnet18-B-v1.5, images resized to 256 (bicubic), the middle 224 x 224: preprocessor_config" in said
    )
    checkpoint = read_checkpoint(place)
    images = checkpoint.recipe.images.for_evaluation()
    assert (images.eval_side, images.eval_interpolation) == (256, "bicubic")
    assert [c.name for c in checkpoint.progress.classes] == [f"bird {i}" for i in range(7)]
    other, _ = checkpoint_of(str(folder), preprocess="232")
    assert other != place
    assert read_checkpoint(other).recipe.images.eval_side == 232


class Quiet(SimpleHTTPRequestHandler):
    """A web server without a line for each request."""

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """URL of tmp_path."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_weights_are_read_from_the_web_with_what_lies_beside(tmp_path: Path, state: State, web: str) -> None:
    hub_folder(tmp_path / "hub", state)
    (model,) = open_models([f"{web}/hub/model.safetensors?download=true"])
    assert model.images.eval_interpolation == "bicubic"
    torch.testing.assert_close(model.weights["fc.weight"], state["fc.weight"])
    with pytest.raises(ValueError, match=r"no file of weights at http://127\.0\.0\.1:\d+/none\.pth$"):
        open_models([f"{web}/none.pth?token=secret"], V15)


def test_what_a_checkpoint_lacks_is_counted_too(tmp_path: Path, untrained: Any) -> None:
    checkpoint = read_checkpoint(str(next(untrained().glob("step-*"))))
    del checkpoint.model["fc.bias"]
    with pytest.raises(ValueError, match=r"must hold its weights: 1 of \d+ are missing \(fc\.bias\)$"):
        checkpoint.network()


def test_our_own_networks_names_are_torchvisions() -> None:
    assert build(V15).state_dict().keys() == resnet18().state_dict().keys()
