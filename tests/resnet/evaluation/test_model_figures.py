"""Figures beside a checkpoint: read as they were written, refused where they are damaged."""

from pathlib import Path

import pytest

from resnet.evaluation.model_figures import FIGURES, FigureRange, ModelFigures, OutputFigures, read_figures

SHARE = FigureRange(value=0.9, low=0.8, high=0.95)
FOUND = OutputFigures(
    id=0, images=12, sensitivity=SHARE, specificity=SHARE, precision=SHARE, auroc=SHARE, threshold=0.3,
    specificity_there=SHARE,
)  # fmt: skip
NEVER = FOUND.model_copy(update={"id": 1, "images": 0, "sensitivity": FigureRange(), "threshold": None})
FIGURES_OF_TWO = ModelFigures(
    data="/shards", split="test", images=12, accuracy=SHARE, balanced_accuracy=SHARE, ece=SHARE,
    wished_sensitivity=0.95, classes=(FOUND, NEVER),
)  # fmt: skip


def test_they_are_read_as_they_were_written_and_a_class_without_images_has_no_threshold(tmp_path: Path) -> None:
    assert read_figures(tmp_path) is None
    (tmp_path / FIGURES).write_text(FIGURES_OF_TWO.model_dump_json())
    assert read_figures(tmp_path) == FIGURES_OF_TWO
    assert FIGURES_OF_TWO.thresholds == {0: 0.3}


@pytest.mark.parametrize("text", ["", "{}", "[1]", FIGURES_OF_TWO.model_dump_json().replace("0.3", "1.3")])
def test_what_is_damaged_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / FIGURES).write_text(text)
    with pytest.raises(ValueError, match=f"^{FIGURES} of .* is damaged: ") as refused:
        read_figures(tmp_path)
    assert "\n" not in str(refused.value)
