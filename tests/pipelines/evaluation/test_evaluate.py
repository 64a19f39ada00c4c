"""The test of a network on the real engines: Ray Data tasks and actors, against plain loops without Ray."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from pipelines.evaluation.evaluate import Evaluation, evaluate
from pipelines.evaluation.outcome import evaluation_table
from pipelines.shards.manifest import read_manifest
from resnet.evaluation.layer_responses import layer_responses
from resnet.paper.result_rows import read_results
from resnet.training.checkpoint import load_checkpoint


def asked(**fields):
    return Evaluation(**fields)


def checkpoint(untrained, seed=0):
    return str(next(untrained(seed).glob("step-*")))


@pytest.fixture(scope="module")
def tested(ray_local, untrained, tmp_path_factory):
    """The same test with one worker and with three, with everything that can be written."""
    found = []
    for workers in (1, 3):
        out = tmp_path_factory.mktemp(f"workers{workers}")
        places = {name: str(out / name) for name in ("predictions.parquet", "out", "results")}
        options = asked(
            workers=workers,
            gpu=False,
            responses=True,
            predictions=places["predictions.parquet"],
            out=places["out"],
            results=places["results"],
        )
        found.append((evaluate([checkpoint(untrained)], options, show=False), out))
    return found


def images(digits):
    """Keys, labels and pixels of the held out digits, in the order of the shards, read without our readers."""
    keys, labels, pixels = [], [], []
    for shard in read_manifest(digits).of_split("val"):
        rows = parquet.read_table(Path(digits) / shard.file).to_pydict()
        keys += rows["key"]
        labels += rows["label"]
        pixels += [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in rows["image"]]
    return keys, np.array(labels), torch.from_numpy(np.stack(pixels))


@torch.inference_mode()
def test_every_image_counts_once_with_the_scores_of_a_plain_loop(tested, digits, untrained):
    keys, labels, pixels = images(digits)
    state = load_checkpoint(checkpoint(untrained))
    scores = state.network()(state.normalize()(pixels)).double().softmax(1).numpy()
    details, out = tested[0]
    rows = parquet.read_table(out / "predictions.parquet").to_pydict()
    assert rows["key"] == keys
    assert rows["label"] == labels.tolist()
    np.testing.assert_allclose(rows["score_of_label"], scores[np.arange(360), labels], atol=1e-5)
    np.testing.assert_allclose(np.array(rows["score"]), -np.sort(-scores)[:, :5], atol=1e-5)
    wrong = int((np.array(rows["top"])[:, 0] != labels).sum())
    assert details.outcome.examples == 360
    assert details.outcome.top1_error == 100 * wrong / 360
    assert abs(wrong - int((scores.argmax(1) != labels).sum())) <= 1


def test_three_workers_give_the_digits_of_one(tested):
    (one, first), (three, second) = tested
    assert one.outcome.workers == 1
    assert three.outcome.workers == 3
    assert one.summary == three.summary
    assert one.responses == three.responses
    a, b = (parquet.read_table(out / "predictions.parquet") for out in (first, second))
    assert a.equals(b)


def test_responses_are_those_of_a_plain_loop(tested, digits, untrained):
    _, _, pixels = images(digits)
    state = load_checkpoint(checkpoint(untrained))
    expected = layer_responses(state.network(), state.normalize(), pixels.split(100))
    found = tested[0][0].responses
    assert [r.layer for r in found] == [r.layer for r in expected]
    np.testing.assert_allclose([r.std for r in found], [r.std for r in expected], rtol=1e-5)


def test_everything_is_written_down(tested, untrained):
    details, out = tested[0]
    kept = json.loads((out / "out" / "evaluation.json").read_text())
    assert kept["outcome"] == details.outcome.model_dump(mode="json")
    assert sum(row["examples"] for row in kept["summary"]["classes"]) == 360
    assert sum(count for _, _, count in kept["summary"]["confusions"]) == 360
    for name in ("responses.png", "responses.svg", "reliability.png", "reliability.svg"):
        assert (out / "out" / name).stat().st_size > 5_000
    (row,) = read_results(out / "results")
    assert [e.protocol for e in row.evaluations] == ["single"]
    assert row.responses == details.responses
    assert row.data.name == "digits"
    text = evaluation_table(details)
    assert "top-1 error" in text
    assert "responses of 7 layers" in text
