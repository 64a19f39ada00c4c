"""The registry alone says which versions answer: the alias that is asked for, and a canary beside it."""

import re
from typing import Any

import pytest

from pipelines.models import canary_alias
from pipelines.models.canary_alias import (
    Beside,
    begin_beside,
    end_beside,
    end_one,
    follows,
    note_refusal,
    note_verdict,
    parse_canary,
    parse_time,
    steer,
    traffic,
)
from pipelines.tracking import mlflow_runs


@pytest.fixture
def model(store: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a model of the test's own with versions 1, 2 and 3, of which the first is champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api: Any = mlflow_runs.client()
    name = re.sub(r"\W+", "-", request.node.name)[:60]
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
    assert traffic(f"{model}@champion") == {"stable": stable, "beside": []}
    said = begin_beside(f"{model}@champion", Beside(["2=12.5%"]))
    assert said == f"version 2 is a canary of {model}@champion, for 12.5 % of the images"
    canary = {"version": "2", "checkpoint": "/checkpoint-2", "percent": 12.5, "shadow": False, "promote_after": None}
    assert traffic(f"{model}@champion") == {"stable": stable, "beside": [canary]}
    assert traffic(f"{model}/1")["beside"] == [], "a version means itself"
    begin_beside(f"{model}@champion", Beside(["3=50%"]))
    assert [each["version"] for each in traffic(f"{model}@champion")["beside"]] == ["3"], "in place of the one before"
    note_verdict(f"{model}@champion", "3", "twice as slow")
    assert end_beside(f"{model}@champion", promote=False) == "version 3 is no canary any more (twice as slow)"
    assert traffic(f"{model}@champion") == {"stable": stable, "beside": []}


def test_a_promoted_canary_is_the_champion(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert steer(f"{model}@champion", Beside(), promote=False, rollback=False) is None
    steer(f"{model}@champion", Beside(["2=10%"]), promote=False, rollback=False)
    outcome = steer(f"{model}@champion", Beside(), promote=True, rollback=False)
    sentence = f"version 2 is {model}@champion now (no verdict yet)"
    assert outcome == {
        "model": f"{model}@champion",
        "done": sentence,
        "stable": {"version": "2", "checkpoint": "/checkpoint-2"},
        "beside": [],
    }
    assert capsys.readouterr().err.splitlines()[-1] == sentence


def test_what_cannot_be_a_canary_is_one_sentence_and_changes_nothing(model: str) -> None:
    for call, sentence in (
        (
            lambda: begin_beside(f"{model}@champion", Beside(["1=10%"])),
            "canary must be another version than .*@champion, got 1",
        ),
        (lambda: begin_beside(f"{model}/2", Beside(["3=10%"])), "model must name an alias to have a canary, .*/2"),
        (lambda: begin_beside(f"{model}@champion", Beside(["9=10%"])), "has no version 9"),
        (lambda: end_beside(f"{model}@champion", promote=True), "must have a canary to promote, it has none"),
        (lambda: end_beside(f"{model}@champion", promote=False), "must have a canary to roll back, it has none"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()
    assert set(mlflow_runs.client().get_registered_model(model).aliases) == {"champion"}
    mlflow_runs.client().set_registered_model_alias(model, "canary", "2")
    with pytest.raises(ValueError, match="version 2, alias canary, must have tag canary_percent; --canary sets both"):
        traffic(f"{model}@champion")


def test_a_checkpoint_is_served_as_it_is_and_options_for_weights_are_refused_elsewhere() -> None:
    stable = {"version": "unregistered", "checkpoint": "s3://bucket/run/step-1"}
    assert traffic("resnet", "s3://bucket/run/step-1") == {"stable": stable, "beside": []}
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


def test_several_are_beside_it_and_each_ends_alone(model: str) -> None:
    alias = f"{model}@champion"
    begin_beside(alias, Beside(["2=10%"], ["3=100%"], "30m"))
    told = [
        (each["version"], each["percent"], each["shadow"], each["promote_after"]) for each in traffic(alias)["beside"]
    ]
    assert told == [("2", 10, False, 1800), ("3", 100, True, 1800)]
    assert end_one(alias, "3", promote=True) == f"version 3 is {alias} now (no verdict yet)"
    assert traffic(alias)["stable"]["version"] == "3"
    assert [each["version"] for each in traffic(alias)["beside"]] == ["2"]
    assert end_one(alias, "9", promote=True) == f"version 9 is beside {alias} no more"
    begin_beside(alias, Beside(["1=10%", "2=20%"]))
    assert [(each["version"], each["promote_after"]) for each in traffic(alias)["beside"]] == [("1", None), ("2", None)]
    with pytest.raises(ValueError, match=r"must have one canary to promote, it has 1 and 2: begin anew"):
        end_beside(alias, promote=True)
    ended = end_beside(alias, promote=False)
    assert ended == "version 1 is no canary any more (no verdict yet); version 2 is no canary any more (no verdict yet)"
    assert traffic(alias)["beside"] == []


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        (Beside(["2=60%", "3=40%"]), "canary must leave .* a share, got 100 % together"),
        (Beside(["2=10%"], ["2=10%"]), "must name each version once, got 2 2 times"),
        (Beside(["2=10%"], promote_after="1"), "promote_after must be a number with s, m, h or d behind it, .* got 1$"),
        (Beside(["2=10%"], promote_after="soon"), "promote_after must be a number"),
        (Beside([], ["2=101%"]), "shadow must be VERSION=PERCENT% with its sign, more than 0 and at most 100"),
        (Beside([], ["1=10%"]), "shadow must be another version than .*@champion, got 1"),
    ],
)
def test_what_cannot_be_beside_it_changes_nothing(model: str, beside: Beside, words: str) -> None:
    alias = f"{model}@champion"
    begin_beside(alias, Beside(["3=5%"]))
    before = traffic(alias)
    with pytest.raises(ValueError, match=words):
        begin_beside(alias, beside)
    assert traffic(alias) == before


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86400), ("0s", 0)])
def test_times_have_a_unit(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds
