"""A checkpoint comes back exactly, whole or not at all, and reading one executes nothing."""

import os
from pathlib import Path

import pytest
import torch

from resnet import build
from resnet.checkpoint import Checkpoint, Progress, load, optimizer_tensors, restore_optimizer, save
from resnet.classes import ImageClass
from resnet.grey_range import GreyRange
from resnet.optim import optimizer
from resnet.recipe import Optim, recipe
from resnet.steps import train_step


def small(steps: int = 2) -> tuple[torch.nn.Module, torch.optim.Optimizer, Checkpoint]:
    torch.manual_seed(0)
    model = build("cifar10-resnet8", 3).to(memory_format=torch.channels_last)
    optim = optimizer(model, Optim())
    for _ in range(steps):
        train_step(model, optim, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))
    classes = tuple(ImageClass(id=i, wnid=f"n{i}", name=f"name {i}") for i in range(3))
    run = {"recipe": recipe("cifar10-resnet8").model_dump(mode="json"), "seed": 0}
    return (
        model,
        optim,
        Checkpoint(
            model=model.state_dict(),
            optimizer=optimizer_tensors(model, optim),
            pixels={"mean": torch.rand(3, 32, 32), "std": torch.ones(3, 1, 1)},
            run=run,
            progress=Progress(step=2, total_steps=10, examples=5, classes=classes),
        ),
    )


def test_training_goes_on_bit_for_bit_from_a_checkpoint(tmp_path: Path) -> None:
    model, optim, checkpoint = small()
    save(tmp_path / "c", checkpoint)
    back = load(tmp_path / "c")
    assert back.progress == checkpoint.progress
    again = build(back.recipe.network, 3).to(memory_format=torch.channels_last)
    again.load_state_dict(back.model)
    optim2 = optimizer(again, Optim())
    restore_optimizer(again, optim2, back.optimizer)
    torch.manual_seed(1)
    pixels, labels = torch.randn(4, 3, 32, 32), torch.tensor([2, 1, 0, 0])
    for _ in range(3):
        a, b = train_step(model, optim, pixels, labels), train_step(again, optim2, pixels, labels)
        assert torch.equal(a, b)
    for (name, p), q in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(p, q), name


def test_the_network_predicts_the_same(tmp_path: Path) -> None:
    model, _, checkpoint = small()
    save(tmp_path / "c", checkpoint)
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load(tmp_path / "c").network()(pixels), model.eval()(pixels))


def test_nothing_is_left_of_a_save_that_failed(tmp_path: Path) -> None:
    _, _, checkpoint = small()
    checkpoint.run["broken"] = object()
    with pytest.raises(TypeError):
        save(tmp_path / "c", checkpoint)
    assert not (tmp_path / "c").exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "run.json", "progress.json"])
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, name: str) -> None:
    _, _, checkpoint = small()
    save(tmp_path / "c", checkpoint)
    (tmp_path / "c" / name).write_bytes(b"\x80\x04not what it was")
    with pytest.raises(ValueError, match="damaged"):
        load(tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    with pytest.raises(ValueError, match=f"must hold {name}"):
        load(tmp_path / "c")


def test_a_range_of_grey_levels_travels_with_the_weights(tmp_path: Path) -> None:
    _, _, checkpoint = small()
    save(tmp_path / "plain", checkpoint)
    assert load(tmp_path / "plain").grey_range is None
    assert "grey_range" not in (tmp_path / "plain" / "progress.json").read_text()
    checkpoint.progress = checkpoint.progress.model_copy(update={"grey_range": (100, 4095)})
    save(tmp_path / "deep", checkpoint)
    assert load(tmp_path / "deep").grey_range == GreyRange(100, 4095)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    checkpoint = small()[2]
    before = os.umask(umask)
    try:
        save(tmp_path / "saved", checkpoint)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "saved").iterdir()} == {mode}


def test_a_file_that_may_not_be_read_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors calls it absent. Root may read all, so access is pretended."""
    save(tmp_path / "saved", small()[2])
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).endswith("model.safetensors"))
    with pytest.raises(ValueError, match=r"must be readable by who loads it, got .*model\.safetensors: perm.* denied"):
        load(tmp_path / "saved")
