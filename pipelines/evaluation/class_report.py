"""The page of a classifier for its team: what it gets right, how sure that is, what it mistakes and where it looks."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines import provenance
from pipelines.evaluation.class_figures import (
    FEW,
    LEVEL,
    Answers,
    ClassifierFigures,
    Interval,
    classifier_figures,
    few,
)
from pipelines.evaluation.outcome import Details
from pipelines.evaluation.scoring_tasks import Scored
from pipelines.evaluation.worst_mistakes import Mistake, worst_mistakes
from pipelines.file_names import without_secrets_in
from pipelines.preparation.splits.groups import GroupBy, groups_of
from pipelines.reports import figures
from pipelines.reports.html_page import Figure, Gallery, Heading, PageBlock, Paragraph, Table, to_html
from pipelines.shards.manifest import Manifest
from pipelines.shards.row_groups import Split
from pipelines.storage import Folder
from resnet.evaluation.model_figures import FIGURES, ModelFigures

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from resnet.evaluation.scorer import Model

MOST_CLASSES = 200
MISTAKES = 24
COUNTED = 30  # classes up to which a confusion's cells hold their numbers


@dataclass(frozen=True)
class Tested:
    """The subject of a page. outputs: of the network, of each class of the data."""

    model: Model
    manifest: Manifest
    split: Split
    outputs: Sequence[int]
    details: Details
    scored: Scored

    @property
    def names(self) -> list[str]:
        """The classes of the data, for people."""
        return [c.name for c in self.manifest.classes]


def require_few_classes(manifest: Manifest) -> None:
    """ValueError: a page by class would be too long."""
    if len(manifest.classes) > MOST_CLASSES:
        raise ValueError(
            f"report is for at most {MOST_CLASSES} classes, the data have {len(manifest.classes)}; out has their table"
        )


def write_class_report(
    folder: Path, tested: Tested, group: GroupBy, wished_sensitivity: float, draws: int
) -> ClassifierFigures:
    """Write report.html and report.json; the figures. ValueError: an image has no group."""
    assert tested.scored.all_scores is not None
    assert tested.scored.keys is not None
    keys = [str(key) for key in tested.scored.keys]
    by = group if group.given else grouping_of(tested.manifest)
    groups = np.unique(groups_of(by, keys, keys) if by.given else keys, return_inverse=True)[1]
    place = {output: label for label, output in enumerate(tested.outputs)}
    labels = np.asarray([place[int(output)] for output in tested.scored.ranked.labels])
    best = tested.scored.ranked.top[:, 0]
    predicted = np.asarray([place.get(int(output), len(place)) for output in best])
    answers = Answers(tested.scored.all_scores, labels, predicted, groups)
    found = classifier_figures(answers, wished_sensitivity, draws=draws)
    mistakes = _mistakes(tested, labels, predicted)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(found.model_dump_json(indent=1))
    (folder / "report.html").write_text(to_html(page(tested, found, answers, mistakes, by)))
    return found


def keep_figures(checkpoint: Folder, tested: Tested, found: ClassifierFigures) -> None:
    """Write the figures beside a checkpoint, by the network's outputs: its endpoint answers by their thresholds."""
    shared = ("images", "accuracy", "balanced_accuracy", "ece", "wished_sensitivity")
    of_class = ("images", "sensitivity", "specificity", "precision", "auroc", "threshold", "specificity_there")
    outcome, told = tested.details.outcome, found.model_dump()
    classes = [{name: row[name] for name in of_class} | {"id": tested.outputs[row["label"]]} for row in told["classes"]]
    about = {"data": without_secrets_in(outcome.data), "split": outcome.split, "classes": classes}
    figures = ModelFigures.model_validate(about | {name: told[name] for name in shared})
    with checkpoint.writing(FIGURES) as file:
        file.write(figures.model_dump_json(indent=1).encode())


def grouping_of(manifest: Manifest) -> GroupBy:
    """The split of the data by groups, where their manifest says it; none otherwise."""
    told = manifest.splitting.group if manifest.splitting else None
    if told is None:
        return GroupBy()
    if match := re.fullmatch(r"part (-?\d+) of the path", told):
        return GroupBy(part=int(match[1]))
    if match := re.fullmatch(r"pattern (.+) of the path", told):
        return GroupBy(pattern=match[1])
    match = re.fullmatch(r"column (.+?) of (.+)", told)
    return GroupBy(csv=match[2], column=match[1]) if match else GroupBy()


def _mistakes(tested: Tested, labels: np.ndarray, predicted: np.ndarray) -> list[Mistake]:
    """The wrong answers with the highest scores."""
    ranked = tested.scored.ranked
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-ranked.scores[wrong, 0], kind="stable")][:MISTAKES].tolist()
    return worst_mistakes(tested.model, tested.split, wrong, ranked.top[:, 0], ranked.scores[:, 0], ranked.of_label)


def page(
    tested: Tested, found: ClassifierFigures, answers: Answers, mistakes: Sequence[Mistake], by: GroupBy
) -> list[PageBlock]:
    """The blocks of the page, in their order."""
    outcome = tested.details.outcome
    grouped = f"{found.groups} groups by {by.description}" if by.given else "images drawn one by one"
    blocks: list[PageBlock] = [
        Heading(1, f"{', '.join(outcome.checkpoints)} on {outcome.split}"),
        Paragraph(
            f"{found.images:,} {outcome.split} images of {len(tested.names)} classes, {outcome.data}; network "
            f"{tested.model.network}; {outcome.preprocessing}; protocol {outcome.protocol}, {outcome.precision}; "
            f"commit {provenance.git_commit()[:12]}."
        ),
        Paragraph(
            f"In brackets: the middle {LEVEL:g} % of bootstrap samples, {grouped}. Figures of a split by which a "
            "network, its length or its settings were chosen are too good; those of split test are not."
        ),
        Heading(2, "As a whole"),
        _whole(found),
        Heading(2, "By class"),
        _classes(tested, found),
        *notes_on(tested, found),
        Heading(2, "Confusion"),
        Figure("confusion", "Share of each class's images (row) that were taken for each class (column).",
               confusion_picture(answers, tested.names)),
        Heading(2, "Calibration"),
        Figure("reliability", "A score of 0.8 should be right in 80 % of the cases: points on the line.",
               figures.reliability_diagram(tested.details.summary)),
        *([] if outcome.unknown is None else [Heading(2, "Unknown pictures"), Paragraph(f"{outcome.unknown.shown}.")]),
        Heading(2, "Worst mistakes"),
    ]  # fmt: skip
    if not mistakes:
        return [*blocks, Paragraph("No image was taken for another class.")]
    told = (
        f"The {len(mistakes)} wrong answers with the highest scores. On the right where the network looked for its "
        "answer (Grad-CAM on the last map, the centre crop)."
    )
    return [*blocks, Gallery(told, [_pictured(tested, mistake) for mistake in mistakes])]


def _pictured(tested: Tested, mistake: Mistake) -> tuple[str, Sequence[str]]:
    answer = tested.details.names[mistake.output]
    label = tested.names[mistake.label]
    uri = "data:image/png;base64," + base64.b64encode(mistake.picture).decode()
    return uri, (f"{label} taken for {answer}", f"{mistake.score:.3f}, own {mistake.score_of_label:.3f}", mistake.key)


def _whole(found: ClassifierFigures) -> Table:
    rows = [
        ("accuracy", percent(found.accuracy)),
        ("balanced accuracy, mean of the classes' sensitivities", percent(found.balanced_accuracy)),
        ("AUROC, mean of the classes", share(found.auroc)),
        ("average precision, mean of the classes", share(found.average_precision)),
        ("expected calibration error", percent(found.ece)),
        ("loss", share(found.loss)),
    ]
    return Table(f"{found.images:,} images, {found.groups:,} groups", "lr", ("figure", "value"), rows)


def _classes(tested: Tested, found: ClassifierFigures) -> Table:
    wished = f"{100 * found.wished_sensitivity:g} %"
    header = ("class", "images", "groups", "sensitivity %", "specificity %", "precision %", "AUROC",
              "average precision", f"threshold for {wished} sensitivity", "specificity there %")  # fmt: skip
    rows = [
        (
            tested.names[row.label],
            f"{row.images:,}",
            f"{row.groups:,}",
            *(percent(figure) for figure in (row.sensitivity, row.specificity, row.precision)),
            *(share(figure) for figure in (row.auroc, row.average_precision)),
            "-" if row.threshold is None else f"{row.threshold:.4f}",
            percent(row.specificity_there),
        )
        for row in found.classes
    ]
    return Table("Each class against all others", "l" + "r" * (len(header) - 1), header, rows)


def notes_on(tested: Tested, found: ClassifierFigures) -> list[PageBlock]:
    """Warnings that a reader needs before believing the figures."""
    notes: list[PageBlock] = []
    if rare := few(found, tested.names):
        notes.append(Paragraph(f"Fewer than {FEW} images: {', '.join(rare)}. Their figures say little."))
    duplicates = tested.manifest.duplicates
    if duplicates is None:
        notes.append(Paragraph("Duplicates between the splits were not counted when the shards were written."))
    elif shared := {str(split): count for split, count in duplicates.in_train.items()}.get(tested.split.name, 0):
        pairs = "; ".join(f"{a} is {b}" for a, b in duplicates.pairs[:5])
        notes.append(
            Paragraph(f"{shared} of these images are in train too, byte for byte, and flatter the figures: {pairs}.")
        )
    else:
        notes.append(Paragraph("None of these images is in train too, byte for byte."))
    return notes


def percent(figure: Interval) -> str:
    """`93.1 (90.2-95.6)`, in percent."""
    return _told(figure, 100, 1)


def share(figure: Interval) -> str:
    """`0.931 (0.902-0.956)`."""
    return _told(figure, 1, 3)


def _told(figure: Interval, factor: float, digits: int) -> str:
    if figure.value is None:
        return "-"
    value = f"{factor * figure.value:.{digits}f}"
    if figure.low is None or figure.high is None:
        return value
    return f"{value} ({factor * figure.low:.{digits}f}-{factor * figure.high:.{digits}f})"


def confusion_picture(answers: Answers, names: Sequence[str]) -> Drawing:
    """Rows are classes, columns answers; a last column holds answers that are no class of the data."""
    import matplotlib as mpl
    from sklearn.metrics import confusion_matrix

    count = len(names)
    outside = bool((answers.predicted == count).any())
    columns = [*names, "another"] if outside else list(names)
    table = confusion_matrix(answers.labels, answers.predicted, labels=list(range(len(columns))))[:count]
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    side = min(9.0, 2.2 + 0.33 * count)
    with mpl.rc_context(figures.STYLE | {"axes.grid": False}):
        drawing, (ax,) = figures.blank(side + 1.4, side)
        image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        ax.set_xticks(range(len(columns)), [name[:24] for name in columns], rotation=90)
        ax.set_yticks(range(count), [name[:24] for name in names])
        ax.set(xlabel="answer", ylabel="class")
        if count <= COUNTED:
            for i, j in zip(*np.nonzero(table), strict=True):
                ink = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, f"{table[i, j]}", ha="center", va="center", color=ink, fontsize=7)
        drawing.colorbar(image, ax=ax, shrink=0.7)
    return drawing
