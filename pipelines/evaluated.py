"""What a test gave: its figures, all that is known of it, and how it is written down and shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.storage import filesystem
from resnet.recipe import Frozen
from resnet.results import Response
from resnet.scores import Summary
from resnet.views import ViewProtocol

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.scoring import Scored


class Outcome(Frozen):
    """What a test gave. Errors in percent of `examples` images; ece: expected calibration error of the top score.

    preprocessing: what was done to an image before the protocol's views.
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
    result: str | None = None


class Details(Frozen):
    """All of a test: evaluation.json. names: what each output of the networks means, to people."""

    outcome: Outcome
    summary: Summary
    names: tuple[str, ...]
    responses: tuple[Response, ...] = ()


def write(out: Path, details: Details) -> None:
    """evaluation.json, and the figures of what is known."""
    from pipelines import figures

    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(details.model_dump_json(indent=1))
    figures.save(figures.reliability(details.summary), out, "reliability")
    if details.responses:
        name = Path(details.outcome.checkpoints[0]).name
        figures.save(figures.responses({name: details.responses}), out, "responses")


def write_predictions(uri: str, details: Details, scored: Scored) -> None:
    """One row an image, in the order of the data set: key, label, top (the best first), score, score_of_label.

    label and top are outputs of the network. The file's metadata hold the outcome.
    """
    from pyarrow import parquet

    folder, _, name = uri.rpartition("/")
    system, root = filesystem(folder or ".")
    system.create_dir(root, recursive=True)
    parquet.write_table(predictions(details, scored), f"{root}/{name}", filesystem=system)


def predictions(details: Details, scored: Scored) -> pa.Table:
    """The table of write_predictions."""
    import pyarrow as pa

    ranked = scored.ranked
    assert scored.keys is not None
    columns = {
        "key": pa.array(scored.keys.tolist(), pa.string()),
        "label": pa.array(ranked.labels, pa.int32()),
        "top": pa.array(list(ranked.top), pa.list_(pa.int32())),
        "score": pa.array(list(ranked.scores), pa.list_(pa.float64())),
        "score_of_label": pa.array(ranked.of_label, pa.float64()),
    }
    return pa.table(columns, metadata={"evaluation": details.outcome.model_dump_json()})


def table(details: Details, worst: int = 10) -> str:
    """What a person wants to see of a test."""
    outcome, summary = details.outcome, details.summary
    how = f"{outcome.protocol}{' and mirror images' if outcome.mirror else ''}, {outcome.precision}"
    lines = [
        f"{', '.join(outcome.checkpoints)}",
        f"{how}, {outcome.examples:,} {outcome.split} images of {outcome.data}",
        f"top-1 error {outcome.top1_error:.2f} %   top-5 error {outcome.top5_error:.2f} %   loss {outcome.loss:.4f}   "
        f"calibration error {100 * outcome.ece:.2f} %",
        f"{outcome.seconds:.0f} s, {outcome.images_per_second:,.3g} images/s with start and end",
        "",
        f"{'hardest classes':<32} {'images':>7} {'top-1 error':>12}  most often taken for",
    ]
    hardest = sorted(summary.classes, key=lambda row: -(row.top1_error or 0))[:worst]
    lines += [
        f"{details.names[row.label][:32]:<32} {row.examples:>7,} {row.top1_error or 0:>10.2f} %  "
        + ("-" if row.confused_with is None else f"{details.names[row.confused_with]} ({row.confused})")
        for row in hardest
    ]
    lines += ["", f"{'score of the best class':<32} {'images':>7} {'right':>12}"]
    lines += [
        f"{f'{b.low:.2f} to {b.high:.2f}, mean {b.confidence:.3f}':<32} {b.examples:>7,} {100 * b.accuracy:>10.2f} %"
        for b in summary.bins
        if b.confidence is not None and b.accuracy is not None
    ]
    if details.responses:
        stds = [response.std for response in details.responses]
        mean = sum(stds) / len(stds)
        lines += ["", f"responses of {len(stds)} layers: std {min(stds):.3f} to {max(stds):.3f}, mean {mean:.3f}"]
    return "\n".join(["", *lines])
