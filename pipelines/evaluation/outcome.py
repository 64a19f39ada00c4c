"""The outcome of a test: its figures and circumstances, and how they are written down and shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.prediction.predictions_file import parquet_bytes, predictions_table
from pipelines.progress.text_table import text_table
from pipelines.reports.collected_rows import row_of_run
from pipelines.storage import Folder
from resnet.evaluation.error_summary import Response, Summary
from resnet.evaluation.views import ViewProtocol
from resnet.frozen import Frozen
from resnet.paper.result_rows import Evaluated, read_results, write_results

if TYPE_CHECKING:
    from pipelines.evaluation.scoring_tasks import Scored


class OtherFigures(Frozen):
    """A distance score on pictures of other kinds. auroc: of telling them from those of the tested split;
    auroc_of_probability: the same by 1 - the largest probability; unknown: share of them beyond the threshold."""

    data: str
    split: str
    images: int
    auroc: float
    auroc_of_probability: float
    unknown: float


class UnknownFigures(Frozen):
    """A distance score. share: of the tested split's images whose distance is at most the threshold."""

    threshold: float
    share: float
    images: int
    others: OtherFigures | None = None

    @property
    def shown(self) -> str:
        """In sentences."""
        told = f"distance score: {100 * self.share:g} % of these images lie within {self.threshold:.2f} of training's"
        if (other := self.others) is None:
            return told
        return (
            f"{told}; of {other.images:,} {other.split} images of {other.data} {100 * other.unknown:.1f} % lie farther "
            f"(AUROC {other.auroc:.3f}; by the largest probability alone {other.auroc_of_probability:.3f})"
        )


class EvaluationOutcome(Frozen):
    """Outcome of a test. Errors in percent of `examples` images; ece: expected calibration error of the top score.

    preprocessing: what was done to an image before the protocol's views; unknown: of the distance score, if asked for.
    """

    protocol: ViewProtocol
    mirror: bool
    top1_error: float
    top5_error: float
    loss: float
    ece: float
    examples: int
    seconds: float
    images_per_second: float
    precision: str
    workers: int
    checkpoints: tuple[str, ...]
    data: str
    split: str
    preprocessing: str | None = None
    predictions: str | None = None
    out: str | None = None
    report: str | None = None
    result: str | None = None
    unknown: UnknownFigures | None = None


class Details(Frozen):
    """All of a test: evaluation.json. names: what each output of the networks means, to people."""

    outcome: EvaluationOutcome
    summary: Summary
    names: tuple[str, ...]
    responses: tuple[Response, ...] = ()


def write_evaluation(out: Path, details: Details) -> None:
    """evaluation.json, and the figures of what is known."""
    from pipelines.reports import figures

    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(details.model_dump_json(indent=1))
    figures.save_figure(figures.reliability_diagram(details.summary), out, "reliability")
    if details.responses:
        name = Path(details.outcome.checkpoints[0]).name
        figures.save_figure(figures.responses({name: details.responses}), out, "responses")


def write_predictions(uri: str, details: Details, scored: Scored) -> None:
    """One row an image, in the order of the data set: key, label, top (the best first), score, score_of_label.

    label and top are outputs of the network. The file's metadata hold the outcome.
    """
    assert scored.keys is not None
    metadata = {"evaluation": details.outcome.model_dump_json()}
    table = predictions_table(scored.keys.tolist(), scored.ranked, "float64", metadata)
    folder, _, name = uri.rpartition("/")
    with Folder(folder or ".").writing(name) as file:
        file.write(parquet_bytes(table))


def evaluation_table(details: Details, worst: int = 10) -> str:
    """The figures of a test that a person wants to see, as text."""
    outcome, summary = details.outcome, details.summary
    how = f"{outcome.protocol}{' and mirror images' if outcome.mirror else ''}, {outcome.precision}"
    lines = [
        f"{', '.join(outcome.checkpoints)}",
        f"{how}, {outcome.examples:,} {outcome.split} images of {outcome.data}",
        f"top-1 error {outcome.top1_error:.2f} %   top-5 error {outcome.top5_error:.2f} %   loss {outcome.loss:.4f}   "
        f"calibration error {100 * outcome.ece:.2f} %",
        f"{outcome.seconds:.0f} s, {outcome.images_per_second:,.3g} images/s with start and end",
        *([] if outcome.unknown is None else [outcome.unknown.shown]),
        "",
    ]
    hardest = sorted(summary.classes, key=lambda row: -(row.top1_error or 0))[:worst]
    taken = ("-" if r.confused_with is None else f"{details.names[r.confused_with]} ({r.confused})" for r in hardest)
    lines += text_table(
        "lrrl",
        ("hardest classes", "images", "top-1 error", "most often taken for"),
        [
            (details.names[row.label][:32], f"{row.examples:,}", f"{row.top1_error or 0:.2f} %", other)
            for row, other in zip(hardest, taken, strict=True)
        ],
    )
    bins = [
        (f"{b.low:.2f} to {b.high:.2f}, mean {b.confidence:.3f}", f"{b.examples:,}", f"{100 * b.accuracy:.2f} %")
        for b in summary.bins
        if b.confidence is not None and b.accuracy is not None
    ]
    lines += ["", *text_table("lrr", ("score of the best class", "images", "right"), bins)]
    if details.responses:
        stds = [response.std for response in details.responses]
        mean = sum(stds) / len(stds)
        lines += ["", f"responses of {len(stds)} layers: std {min(stds):.3f} to {max(stds):.3f}, mean {mean:.3f}"]
    return "\n".join(["", *lines])


def add_evaluation(results: str, checkpoint: str, outcome: EvaluationOutcome, responses: Sequence[Response]) -> Path:
    """Put the errors of a protocol, and responses, into the row of the training that wrote a checkpoint; its file.

    The row is made if the folder has none yet. ValueError: the checkpoint is not a finished training's last.
    """
    run, _, step = checkpoint.rstrip("/").rpartition("/")
    row = row_of_run(run)
    if step != f"step-{row.steps:08d}":
        raise ValueError(f"results takes the last checkpoint of a training, step-{row.steps:08d}, got {checkpoint}")
    present = read_results(results) if Path(results).is_dir() else ()
    row = next((old for old in present if old.file_name == row.file_name), row)
    new = Evaluated(
        protocol=outcome.protocol,
        top1_error=outcome.top1_error,
        top5_error=outcome.top5_error,
        examples=outcome.examples,
        precision=outcome.precision,
        mirror=outcome.mirror,
    )
    kept = [old for old in row.evaluations if (old.protocol, old.mirror) != (new.protocol, new.mirror)]
    gained: dict[str, Any] = {"evaluations": (*kept, new)}
    if responses:
        gained["responses"] = tuple(responses)
    return write_results(results, [row.model_copy(update=gained)])[0]
