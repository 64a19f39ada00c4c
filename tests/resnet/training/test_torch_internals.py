"""Private names of torch: all are there in the version that is pinned, and each fallback gives the same."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from resnet.training import torch_internals


def test_no_private_name_is_missing() -> None:
    """A new version of torch that lacks one is told here, by name; the fallbacks are used meanwhile."""
    assert torch_internals.missing_torch_names() == []


def test_a_name_that_is_gone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(torch_internals.PRIVATE_NAMES, "torch.nothing.of_the_kind", "a test")
    assert torch_internals.missing_torch_names() == ["torch.nothing.of_the_kind"]


@pytest.mark.parametrize("without", ["0", "1"])
@pytest.mark.parametrize("share", [0.25, torch.tensor(0.25)])
def test_averages_move_a_share_of_the_way_with_and_without(
    monkeypatch: pytest.MonkeyPatch, share: float | Tensor, without: str
) -> None:
    monkeypatch.setenv(torch_internals.WITHOUT, without)
    torch.manual_seed(0)
    weights, averages = [torch.randn(3, 4) for _ in range(3)], [torch.randn(3, 4) for _ in range(3)]
    expected = [0.75 * average + 0.25 * weight for average, weight in zip(averages, weights, strict=True)]
    addresses = [average.data_ptr() for average in averages]
    torch_internals.move_towards(averages, weights, share)
    torch.testing.assert_close(averages, expected)
    assert [average.data_ptr() for average in averages] == addresses, "in place"


def test_bfloat16_is_what_the_processor_says_with_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        pytest.skip("only Linux has /proc/cpuinfo")
    flags = set(cpuinfo.read_text().split())
    expected = bool({"avx512_bf16", "amx_bf16"} & flags)
    assert torch_internals.multiplies_bfloat16() == expected
    monkeypatch.setenv(torch_internals.WITHOUT, "1")
    assert torch_internals.multiplies_bfloat16() == expected
