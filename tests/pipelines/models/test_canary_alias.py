"""The registry alone says which versions answer: the alias that is asked for, and a canary beside it."""

from typing import Any

import pytest

from pipelines.models import canary_alias
from pipelines.models.canary_alias import (
    begin_canary,
    end_canary,
    follows,
    note_refusal,
    note_verdict,
    parse_canary,
    steer,
    traffic,
)
from pipelines.tracking import mlflow_runs


@pytest.fixture
def model(store: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a model of the test's own with versions 1, 2 and 3, of which the first is champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api: Any = mlflow_runs.client()
    name = request.node.name.partition("[")[0]
    api.create_registered_model(name)
    for version in "123":
        api.create_model_version(name, f"/checkpoint-{version}")
    api.set_registered_model_alias(name, "champion", "1")
    return name


@pytest.mark.parametrize(
    ("text", "parsed"), [("4=10%", ("4", 10.0)), ("12=0.5%", ("12", 0.5)), ("1=99.9%", ("1", 99.9))]
)
def test_a_canary_is_a_version_and_its_share(text: str, parsed: tuple[str, float]) -> None:
    assert parse_canary(text) == parsed


@pytest.mark.parametrize("text", ["4", "4=10", "5=0.1", "4=0%", "4=100%", "v4=10%", "4=-1%", "=10%", "4=10%%", "4=ten"])
def test_what_is_no_share_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"^canary must be VERSION=PERCENT% .*, e\.g\. 4=10%, got "):
        parse_canary(text)


def test_a_canary_answers_beside_the_champion_until_it_is_rolled_back(model: str) -> None:
    stable = {"version": "1", "checkpoint": "/checkpoint-1"}
    assert traffic(f"{model}@champion") == {"stable": stable, "canary": None}
    said = begin_canary(f"{model}@champion", "2=12.5%")
    assert said == f"version 2 is the canary of {model}@champion, for 12.5 % of the images"
    canary = {"version": "2", "checkpoint": "/checkpoint-2", "percent": 12.5}
    assert traffic(f"{model}@champion") == {"stable": stable, "canary": canary}
    assert traffic(f"{model}/1")["canary"] is None, "a version means itself"
    begin_canary(f"{model}@champion", "3=50%")
    assert traffic(f"{model}@champion")["canary"]["version"] == "3", "one at a time"
    note_verdict(f"{model}@champion", "3", "twice as slow")
    assert end_canary(f"{model}@champion", promote=False) == "version 3 is no canary any more (twice as slow)"
    assert traffic(f"{model}@champion") == {"stable": stable, "canary": None}


def test_a_promoted_canary_is_the_champion(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert steer(f"{model}@champion", None, promote=False, rollback=False) is None
    steer(f"{model}@champion", "2=10%", promote=False, rollback=False)
    outcome = steer(f"{model}@champion", None, promote=True, rollback=False)
    sentence = f"version 2 is {model}@champion now (no verdict yet)"
    assert outcome == {
        "model": f"{model}@champion",
        "done": sentence,
        "stable": {"version": "2", "checkpoint": "/checkpoint-2"},
        "canary": None,
    }
    assert capsys.readouterr().err.splitlines()[-1] == sentence


def test_what_cannot_be_a_canary_is_one_sentence_and_changes_nothing(model: str) -> None:
    for call, sentence in (
        (lambda: begin_canary(f"{model}@champion", "1=10%"), "canary must be another version than .*@champion, got 1"),
        (lambda: begin_canary(f"{model}/2", "3=10%"), "model must name an alias to have a canary, .*/2"),
        (lambda: begin_canary(f"{model}@champion", "9=10%"), "has no version 9"),
        (lambda: end_canary(f"{model}@champion", promote=True), "must have a canary to promote, it has none"),
        (lambda: end_canary(f"{model}@champion", promote=False), "must have a canary to roll back, it has none"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    assert set(mlflow_runs.client().get_registered_model(model).aliases) == {"champion"}
    mlflow_runs.client().set_registered_model_alias(model, "canary", "2")
    with pytest.raises(ValueError, match="version 2, alias canary, must have tag canary_percent; --canary sets both"):
        traffic(f"{model}@champion")


def test_a_checkpoint_is_served_as_it_is_and_options_for_weights_are_refused_elsewhere() -> None:
    stable = {"version": "unregistered", "checkpoint": "s3://bucket/run/step-1"}
    assert traffic("resnet", "s3://bucket/run/step-1") == {"stable": stable, "canary": None}
    for option in ("network", "preprocess"):
        with pytest.raises(ValueError, match=rf"{option} is for checkpoint, a file of weights \(.*\.safetensors"):
            traffic("resnet@champion", **{option: "x"})
    assert [follows(name) for name in ("resnet", "resnet@champion", "resnet/3")] == [True, True, False]


def test_an_error_of_the_store_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"model resnet cannot be looked up: .*no space"), canary_alias.told("resnet"):
        raise OSError("no space")
    with pytest.raises(ValueError, match=r"^its own words$"), canary_alias.told("resnet"):
        raise ValueError("its own words")


def test_a_refusal_is_kept_with_the_version_until_it_is_served(model: str) -> None:
    def told() -> str | None:
        return mlflow_runs.client().get_model_version(model, "2").tags.get("endpoint_refused")

    note_refusal(f"{model}@champion", "2", None)
    assert told() is None
    note_refusal(f"{model}@champion", "2", "version 2: its answers are no numbers")
    assert told() == "version 2: its answers are no numbers"
    note_refusal(f"{model}@champion", "2", None)
    assert told() is None
