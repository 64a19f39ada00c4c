"""The page for a team, written by a test of a network on real engines."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from pipelines.evaluation.class_figures import Interval
from pipelines.evaluation.class_report import confusion_picture, grouping_of, percent, require_few_classes, share
from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.preparation.splits.groups import GroupBy
from pipelines.shards.manifest import Duplicates, Splitting, read_manifest
from resnet.image_class import ImageClass
from resnet.training.checkpoint import load_checkpoint
from serve.inference.classifier import Classifier


@pytest.fixture(scope="module")
def written(ray_local: Any, untrained: Any, digits: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an untrained network on the digits, ten keys a group."""
    (shared,) = untrained(0).glob("step-*")
    out = tmp_path_factory.mktemp("page")
    place = shutil.copytree(shared, out / "checkpoint")
    asked = Evaluation(report=str(out), keep=True, draws=100, group=GroupBy(pattern=r"(\d+)\d$"), gpu=False, workers=1)
    outcome = evaluate([str(place)], asked, show=False).outcome
    assert outcome.report == str(out / "report.html")
    return out


def test_the_page_s_figures_are_scikit_learn_s(written: Path, untrained: Any, digits: str) -> None:
    import io

    import torch
    from PIL import Image
    from pyarrow import parquet

    labels, pixels = [], []
    for shard in read_manifest(digits).of_split("val"):
        rows = parquet.read_table(Path(digits) / shard.file).to_pydict()
        labels += rows["label"]
        pixels += [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in rows["image"]]
    state = load_checkpoint(next(untrained(0).glob("step-*")))
    with torch.inference_mode():
        scores = state.network()(state.normalize()(torch.from_numpy(np.stack(pixels)))).double().softmax(1).numpy()
    found = json.loads((written / "report.json").read_text())
    assert found["images"] == 360
    assert found["groups"] < 360
    assert found["accuracy"]["value"] == pytest.approx((scores.argmax(1) == labels).mean(), abs=0.003)
    assert found["accuracy"]["low"] < found["accuracy"]["value"] < found["accuracy"]["high"]
    expected = metrics.roc_auc_score(labels, scores, multi_class="ovr")
    assert found["auroc"]["value"] == pytest.approx(expected, abs=1e-3)
    peers: Any = metrics
    recall = peers.recall_score(labels, scores.argmax(1), average=None, zero_division=0)
    assert [row["sensitivity"]["value"] for row in found["classes"]] == pytest.approx(recall.tolist(), abs=0.03)


def test_the_endpoint_of_the_checkpoint_answers_by_the_thresholds(written: Path) -> None:
    told = json.loads((written / "report.json").read_text())
    classifier = Classifier(str(written / "checkpoint"), precision="float32")
    assert classifier.figures is not None
    assert classifier.figures.thresholds == {row["label"]: row["threshold"] for row in told["classes"]}
    assert (classifier.figures.split, classifier.figures.images) == ("val", 360)
    scores = np.full(10, 0.01, np.float32)
    scores[3] = classifier.figures.thresholds[3] + 1e-6
    assert {p.image_class.id: p.found for p in classifier.best(scores, 1)} == {3: True}
    scores[3] = 0.9 * classifier.figures.thresholds[3]
    found = {p.image_class.id: p.found for p in classifier.best(scores, 10)}
    assert found[3] is False


def test_the_page_shows_classes_pictures_and_mistakes_and_needs_no_other_file(written: Path) -> None:
    page = (written / "report.html").read_text()
    assert page.count("data:image/png;base64,") >= 24, "the worst mistakes"
    assert page.count("<svg") == 2, "confusion and calibration"
    assert "taken for" in page
    assert "AUROC" in page
    assert "None of these images is in train too" in page
    assert 'src="http' not in page
    assert "<script" not in page


def test_groups_are_those_of_the_split(digits: str) -> None:
    manifest = read_manifest(digits)
    told = {
        "part -1 of the path": GroupBy(part=-1),
        r"pattern (p\d+)_ of the path": GroupBy(pattern=r"(p\d+)_"),
        "column patient of /data/a of b.csv": GroupBy(csv="/data/a of b.csv", column="patient"),
    }
    for text, group in told.items():
        split = manifest.model_copy(update={"splitting": Splitting(val_share=0.2, group=text)})
        assert grouping_of(split) == group
        assert group.description == text
    assert not grouping_of(manifest).given


def test_intervals_are_told_in_percent_and_in_shares() -> None:
    figure = Interval(value=0.93149, low=0.9, high=1.0)
    assert percent(figure) == "93.1 (90.0-100.0)"
    assert share(figure) == "0.931 (0.900-1.000)"
    assert percent(Interval()) == "-"
    assert share(Interval(value=0.5)) == "0.500"


def test_a_report_is_refused_where_it_says_nothing(digits: str, untrained: Any) -> None:
    many = tuple(ImageClass(id=i, wnid=str(i), name=str(i)) for i in range(201))
    with pytest.raises(ValueError, match="report is for at most 200 classes, the data have 201"):
        require_few_classes(read_manifest(digits).model_copy(update={"classes": many}))
    (place,) = untrained(0).glob("step-*")
    with pytest.raises(ValueError, match="keep is for the report or the distance of one checkpoint of ours"):
        evaluate([str(next(untrained(0).glob("step-*")))], Evaluation(keep=True), show=False)
    with pytest.raises(ValueError, match="group has an effect with report only, got part 2 of the path"):
        evaluate([str(place)], Evaluation(group=GroupBy(part=2)))


def test_an_answer_that_is_no_class_of_the_data_has_a_column_of_its_own() -> None:
    from pipelines.evaluation.class_figures import Answers

    scores = np.eye(2)[[0, 1, 1]]
    drawing = confusion_picture(Answers(scores, np.array([0, 1, 1]), np.array([0, 1, 2]), np.arange(3)), ["a", "b"])
    ax = drawing.axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "another"]
    assert sorted(text.get_text() for text in ax.texts) == ["1", "1", "1"]


def test_images_that_are_in_train_too_are_told(digits: str, written: Path) -> None:
    from pipelines.evaluation import class_report

    class OfSplit:
        name = "val"

    manifest = read_manifest(digits).model_copy(
        update={"duplicates": Duplicates(within={}, in_train={"val": 3}, other_class=0, pairs=(("v/1", "t/1"),))}
    )
    tested: Any = type("Tested", (), {"manifest": manifest, "split": OfSplit, "names": [str(i) for i in range(10)]})
    found: Any = class_report.ClassifierFigures.model_validate_json((written / "report.json").read_text())
    texts = [block.text for block in class_report.notes_on(tested, found) if isinstance(block, class_report.Paragraph)]
    assert any("3 of these images are in train too, byte for byte" in text and "v/1 is t/1" in text for text in texts)
