"""The test of trained networks by the protocols of the paper, and all that is worth knowing of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipelines.cluster import connection
from pipelines.cluster.planning.known_nodes import known_nodes
from pipelines.cluster.shared_places import SharedPlace, require_everywhere
from pipelines.evaluation import class_report, outcome, unknown_images
from pipelines.evaluation.outcome import Details, EvaluationOutcome
from pipelines.evaluation.scoring_tasks import Scored, ScoringJob, placing, score_split
from pipelines.file_names import Output
from pipelines.models.by_name import label_map, open_checkpoint, open_models, output_names, place
from pipelines.models.preprocessing import NetworkOption, PreprocessOption
from pipelines.models.weight_files import is_weights
from pipelines.preparation.splits.groups import GroupBy
from pipelines.run import Run
from pipelines.shards.manifest import MANIFEST
from pipelines.shards.row_groups import open_split
from pipelines.storage import Folder
from resnet.evaluation.error_summary import Response
from resnet.evaluation.views import MIRRORED, SCALES, SHORTER_SIDE, SQUARE, ViewProtocol, default_protocol
from resnet.frozen import FrozenSettings
from resnet.recipes.recipe import Precision
from resnet.recipes.recipe_settings import Images


class Shards(FrozenSettings):
    """Which images."""

    path: Annotated[
        str | None, Field(description="shards: a folder or URI. None: those that the first model was trained on")
    ] = None
    split: Literal["val", "train", "test"] = "val"


class Evaluation(FrozenSettings):
    """Options of a test of models, and of the files written beside its outcome."""

    data: Shards = Shards()
    protocol: Annotated[
        ViewProtocol | None, Field(description="None: single for policy pad-crop (CIFAR's), else 1-crop")
    ] = None
    mirror: Annotated[bool, Field(description="average the scores of mirror images as well")] = False
    network: NetworkOption = None
    preprocess: PreprocessOption = None
    precision: Annotated[
        Precision, Field(description="of the matrix products; float32 is what a published figure should have")
    ] = "float32"
    workers: Annotated[int | None, Field(ge=1, description="processes that hold the networks. None: what fits")] = None
    gpu: Annotated[bool | None, Field(description="one GPU a worker. None: if there is one")] = None
    responses: Annotated[
        bool, Field(description="standard deviations of the layers' responses, Figure 7: of one network, one view")
    ] = False
    predictions: Annotated[
        Output | None, Field(description="Parquet file or URI to write: one row an image, with its five best classes")
    ] = None
    out: Annotated[
        Output | None, Field(description="folder for the whole result: evaluation.json, and figures as PNG and SVG")
    ] = None
    report: Annotated[
        str | None,
        Field(
            description="folder for report.html: figures of each class with intervals, confusions, calibration, the "
            "worst mistakes as pictures; report.json has the figures"
        ),
    ] = None
    sensitivity: Annotated[
        float, Field(gt=0, le=1, description="report: share of a class's images that its threshold must find")
    ] = 0.95
    keep: Annotated[
        bool,
        Field(
            description="report, distance: keep figures and thresholds, or the score, beside the checkpoint too, "
            "for the endpoint to answer by"
        ),
    ] = False
    distance: Annotated[
        bool, Field(description="a score that tells pictures unlike those of training, from features computed here")
    ] = False
    known: Annotated[
        float, Field(gt=0, lt=1, description="distance: share of the split's images that the threshold calls known")
    ] = 0.95
    others: Annotated[
        str | None, Field(description="distance: shards of other kinds of pictures, which should be called unknown")
    ] = None
    draws: Annotated[int, Field(ge=100, description="report: bootstrap samples for the intervals")] = 1000
    group: Annotated[
        GroupBy, Field(description="report: what is drawn whole, such as a patient. Default: as the data were split")
    ] = GroupBy()
    results: Annotated[
        Output | None,
        Field(description="folder of result rows (docs/results.md): the row of this training gains the errors"),
    ] = None


def evaluate(names: Sequence[str], asked: Evaluation, *, show: bool = True) -> Details:
    """Test one model, or several whose scores are averaged. show: progress on stderr.

    names: checkpoints, models of the registry, files of weights. ValueError for a wrong setting, before the cluster is
    touched; RuntimeError if an image was not counted exactly once.
    """
    models = open_models(names, asked.network, asked.preprocess)
    protocol = asked.protocol or default_protocol(models[0].images)
    _require_an_effect(asked, protocol, models[0].images, len(models))
    uri = asked.data.path or trained_on(names[0])
    manifest, split = open_split(uri, asked.data.split)
    if split.examples == 0:
        raise ValueError(f"{uri} must have {split.name} images, got none")
    outputs = label_map(models[0], manifest.classes)
    report = asked.report is not None
    if report:
        class_report.require_few_classes(manifest)
    keys = asked.predictions is not None or report
    test = ScoringJob(models, protocol, split, outputs, asked.mirror, asked.precision, asked.responses, keys, report)
    began = time.monotonic()
    connection.connect()
    require_everywhere(SharedPlace.of("data.path", Folder(uri), MANIFEST))
    where = placing(known_nodes(), asked.workers, asked.gpu)
    scored = score_split(test, where, show)
    seconds, summary = time.monotonic() - began, scored.ranked.summary()
    outcome = EvaluationOutcome(
        protocol=protocol,
        mirror=asked.mirror,
        top1_error=summary.top1_error,
        top5_error=summary.top5_error,
        loss=summary.loss,
        ece=summary.ece,
        examples=summary.examples,
        seconds=seconds,
        images_per_second=split.examples / seconds,
        precision=scored.precision,
        workers=where.workers,
        checkpoints=tuple(names),
        data=uri,
        split=split.name,
        preprocessing=_preprocessing(models[0].images, protocol),
    )
    details = Details(
        outcome=outcome,
        summary=summary,
        names=output_names(models[0], manifest.classes),
        responses=_responses(scored),
    )
    distance = None
    if asked.distance:
        distance, unknown = unknown_images.measured(models[0], manifest, split, asked.known, asked.others, show=show)
        details = details.model_copy(update={"outcome": outcome.model_copy(update={"unknown": unknown})})
    details = _kept(asked, details, scored)
    if asked.keep and distance is not None:
        unknown_images.keep_distance(Folder(place(names[0])), distance)
    if asked.report is not None:
        tested = class_report.Tested(models[0], manifest, split, outputs, details, scored)
        folder = Path(asked.report).resolve()
        found = class_report.write_class_report(folder, tested, asked.group, asked.sensitivity, asked.draws)
        if asked.keep:
            class_report.keep_figures(Folder(place(names[0])), tested, found)
    return details


def _preprocessing(images: Images, protocol: ViewProtocol) -> str:
    """Description of an image's resizing for the views."""
    one = images.size if protocol == "single" else images.scaled(images.eval_shorter_side or SHORTER_SIDE)
    sides = [images.scaled(scale) for scale in SCALES] if protocol == "multi-scale" else [one]
    shown = ", ".join(map(str, sides))
    return f"shorter side {shown} ({images.eval_interpolation}), network's side {images.size}"


def trained_on(name: str) -> str:
    """The shards that a checkpoint was trained on. ValueError: the model does not say."""
    from pipelines.training.run_data import shards

    if is_weights(name):
        raise ValueError(f"data.path must be given: {name} does not say what it was trained on")
    return shards(Run.model_validate(open_checkpoint(name)[1].run))


def _require_an_effect(asked: Evaluation, protocol: ViewProtocol, images: Images, models: int) -> None:
    """ValueError for a setting that would say nothing, or something else than it seems to."""
    if protocol == "single" and images.policy != "pad-crop":
        raise ValueError(f"protocol single is for policy pad-crop, got {images.policy}; 1-crop is its like")
    if asked.mirror and protocol in MIRRORED:
        raise ValueError(f"mirror has no effect with protocol {protocol}, which has mirror images")
    if asked.responses and (models > 1 or asked.mirror or protocol not in SQUARE - MIRRORED):
        raise ValueError("responses are of one network and one view: protocol single or 1-crop, without mirror")
    if asked.results is not None and (models > 1 or asked.network is not None or asked.data.split != "val"):
        raise ValueError("results takes the validation errors of one checkpoint of ours")
    what = asked.report is not None or asked.distance
    if asked.keep and (not what or models > 1 or asked.network is not None):
        raise ValueError("keep is for the report or the distance of one checkpoint of ours, got it without one")
    if asked.distance and models > 1:
        raise ValueError(f"distance is for one model, got {models}")
    if asked.distance and asked.data.split == "train":
        raise ValueError("distance needs data.split val or test: the network has learned train, which lies nearer")
    usual = Evaluation.model_fields["known"].default
    if not asked.distance and (asked.others is not None or asked.known != usual):
        field = "others" if asked.others is not None else "known"
        raise ValueError(f"{field} has an effect with distance only, got {getattr(asked, field)}")
    if asked.report is None and asked.group.given:
        raise ValueError(f"group has an effect with report only, got {asked.group.description}")


def _responses(scored: Scored) -> tuple[Response, ...]:
    if scored.responses is None:
        return ()
    from resnet.evaluation.layer_responses import deviations

    return deviations(*scored.responses)


def _kept(asked: Evaluation, details: Details, scored: Scored) -> Details:
    """Write what was asked for; the details with the places of it."""
    gained: dict[str, str] = {}
    if asked.predictions is not None:
        outcome.write_predictions(asked.predictions, details, scored)
        gained["predictions"] = asked.predictions
    if asked.results is not None:
        from pipelines.evaluation.outcome import add_evaluation

        checkpoint = details.outcome.checkpoints[0]
        gained["result"] = str(add_evaluation(asked.results, checkpoint, details.outcome, details.responses))
    if asked.out is not None:
        gained["out"] = str(Path(asked.out).resolve())
    if asked.report is not None:
        gained["report"] = str(Path(asked.report).resolve() / "report.html")
    details = details.model_copy(update={"outcome": details.outcome.model_copy(update=gained)})
    if asked.out is not None:
        outcome.write_evaluation(Path(asked.out), details)
    return details
