"""The job that tests a network: ensembles from its command line, and mistakes before the cluster is touched."""

import json
from pathlib import Path

import pytest

from jobs import evaluate_model
from pipelines import command_line
from pipelines.evaluation.evaluate import Evaluation, Shards, evaluate
from tests.pipelines.evaluation.test_evaluate import checkpoint


@pytest.mark.parametrize("protocol", ["10-crop", "multi-scale"])
def test_an_ensemble_by_the_job_adds_no_image_and_needs_no_path(ray_local, untrained, protocol):
    models = [checkpoint(untrained, seed) for seed in (0, 1)]
    outcome = evaluate_model.job([*models, "--protocol", protocol, "--gpu", "False"])
    assert outcome.examples == 360
    assert outcome.checkpoints == tuple(models)
    assert 0 <= outcome.top5_error <= outcome.top1_error <= 100


def test_mistakes_are_found_before_the_cluster_is_touched(untrained, digits, tmp_path):
    model = checkpoint(untrained)
    for words, sentence in (
        ([model, "--protocol", "12-crop"], "protocol"),
        ([model, "--protocol", "10-crop", "--mirror"], "mirror has no effect with protocol 10-crop"),
        ([model, "--protocol", "10-crop", "--responses"], "responses are of one network and one view"),
        ([model, model, "--results", str(tmp_path)], "results takes the validation errors of one checkpoint"),
        ([model, "--data.path", str(tmp_path)], r"holds no shards"),
        ([model, "--data.split", "dev"], "split"),
        ([], "must be named"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate_model.job(words)
    imagenet = {"policy": "random-resized-crop", "area": (0.08, 1.0), "eval_shorter_side": 256, "size": 32, "pad": None}
    changed = Path(tmp_path, "changed")
    changed.mkdir()
    for path in Path(model).iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    run = json.loads((changed / "run.json").read_text())
    run["recipe"]["images"] |= imagenet
    (changed / "run.json").write_text(json.dumps(run))
    with pytest.raises(ValueError, match="single is for policy pad-crop, got random-resized-crop"):
        evaluate([str(changed)], Evaluation(protocol="single", data=Shards(path=digits)))


def test_help_shows_the_protocols(capsys):
    with pytest.raises(SystemExit):
        command_line.parse_arguments(Evaluation, Evaluation(), ["--help"], evaluate_model.__doc__)
    assert "multi-scale" in capsys.readouterr().out
