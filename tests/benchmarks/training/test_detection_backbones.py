"""Detectors on several backbones: their figures over seeds, and differences seed by seed."""

import pytest

from benchmarks.training.detection_backbones import compared, options_of, shown


def rows(*values: float) -> list[dict[str, float]]:
    return [{"mean_ap": value, "mean_ap50": 2 * value, "mean_ap75": 1.0} for value in values]


def test_differences_are_paired_by_seed() -> None:
    lines = compared({"plain": rows(10, 20, 30), "resnet": rows(12, 21, 33)})
    assert [line["mean"] for line in lines] == [20, 40, 1, 22, 44, 1]
    assert lines[0]["std"] == 10
    assert "difference" not in lines[0]
    assert lines[3]["difference"] == 2
    # Differences 2, 1 and 3: mean 2, standard error 1 / sqrt(3), Student's t of 2 degrees of freedom 4.3027.
    assert lines[3]["interval"] == pytest.approx([2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], abs=1e-3)
    assert lines[5]["interval"] is None, "equal differences are chance"
    assert "+2.00 points, 95 % interval -0.48 to 4.48" in shown(lines)


def test_one_seed_has_no_interval() -> None:
    lines = compared({"plain": rows(10), "resnet": rows(12)})
    assert (lines[0]["std"], lines[3]["interval"]) == (None, None)
    assert "   +2.00 points\n" in shown(lines)


def test_a_backbone_is_a_network_or_a_checkpoint() -> None:
    assert options_of("imagenet-plain34") == ["--recipe.network", "imagenet-plain34"]
    assert options_of("/runs/plain/step-00000010") == ["--backbone", "/runs/plain/step-00000010"]
