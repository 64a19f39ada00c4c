"""Figures and names that the report's words repeat are those of the code and of the paper."""

import math
import re
from types import ModuleType
from typing import Any

import numpy as np
from pydantic import BaseModel

from pipelines.reports import report_text, verdicts
from pipelines.reports.significance import LEVEL
from pipelines.run import Run
from resnet.images.crops import pca_color
from resnet.paper.published import TABLE6


def words(module: ModuleType) -> list[str]:
    found: list[Any] = [value for name, value in vars(module).items() if name.isupper()]
    return [text for value in found for text in ([value] if isinstance(value, str) else np.ravel(value).tolist())]


def test_every_verdict_is_explained() -> None:
    assert [name for name, _ in report_text.VERDICT_ROWS] == list(verdicts.VERDICTS)
    assert f"{100 * LEVEL:g} %" in dict(report_text.VERDICT_ROWS)["alike"]
    assert f"{100 * (1 - LEVEL):g} %" in dict(report_text.VERDICT_ROWS)["holds"]


def has_field(model: Any, path: str) -> bool:
    for name in path.split("."):
        if not (isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields):
            return False
        model = model.model_fields[name].annotation
    return True


def test_choices_that_can_be_made_the_other_way_name_fields_of_a_run() -> None:
    named = [field for *_, last in report_text.DEPARTURE_ROWS for field in re.findall(r"\b[a-z]+[._][a-z_]+\b", last)]
    assert {"images.border", "images.color", "bn_batch", "bn_examples", "data.holdout", "data.window"} <= set(named)
    for field in [*named, "precision"]:
        assert has_field(Run, field) or has_field(Run.model_fields["recipe"].annotation, field), field
    assert all(len(row) == 4 and all(row) for row in report_text.DEPARTURE_ROWS)


def test_the_strength_of_the_colour_augmentation_is_that_of_its_draws() -> None:
    """Standard deviations along the three principal axes, in grey levels, by eigenvalue and by its root."""
    (row,) = [row for row in report_text.DEPARTURE_ROWS if row[0].startswith("PCA colour")]
    printed = [float(number) for number in re.findall(r"\d+\.\d", row[2])]
    shifts = {
        kind: np.array([pca_color.pca_shift(np.random.default_rng(i), color=kind) for i in range(4000)])
        for kind in ("pca", "pca-std")
    }
    measured = [np.sqrt(np.linalg.eigvalsh(np.cov(shifts[kind].T)))[::-1] for kind in ("pca", "pca-std")]
    np.testing.assert_allclose(np.concatenate(measured), printed, rtol=0.05, atol=0.05)


def test_the_papers_spread_of_110_layers_is_the_tables() -> None:
    (row,) = [row for row in TABLE6 if row.network == "cifar10-resnet110-A"]
    assert row.std is not None
    assert f"varies by {row.std:.2f} points" in " ".join(report_text.POWER.split())
    assert f"about {row.std * math.sqrt(2):.2f}" in report_text.POWER


def test_placeholders_are_filled_and_sentences_are_joined_by_one_space() -> None:
    assert report_text.PLATEAU.format(settings="setting 1, 3").startswith("In setting 1, 3 the learning rate")
    assert "{" not in "".join(text for text in words(report_text) if text != report_text.PLATEAU)
    for text in words(report_text):
        assert not re.search(r"  |\s$|^\s|[a-z]\.[A-Z]", text), text
