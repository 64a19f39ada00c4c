"""Versions of a registered model: who is champion, what is registered once, and what errors of the store mean."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.tracking import mlflow_runs, model_registry
from pipelines.tracking.model_registry import Judged


def judged(wrong: int, data: str = "d1", examples: int = 300, protocol: str = "1-crop") -> model_registry.Judged:
    """Errors of a network."""
    return model_registry.Judged(wrong, examples, data, protocol)


def registered(api: Any, name: str, folder: str, by: model_registry.Judged) -> tuple[str, str]:
    """A version of a run of its own."""
    run_id = api.create_run(mlflow_runs.experiment(api)).info.run_id
    return model_registry.register(api, run_id, folder, by, name, lambda: (folder, None))


def test_the_champion_moves_only_if_strictly_better_on_the_same_data(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    assert model_registry.model_name(api, None, judged(110)) == "resnet"
    said = [
        registered(api, "resnet", *model)[1]
        for model in (
            ("/first", judged(110)),
            ("/equal", judged(110)),
            ("/worse", judged(111)),
            ("/elsewhere", judged(1, data="d2")),
            ("/otherwise", judged(1, protocol="10-crop")),
            ("/better", judged(109)),
        )
    ]
    assert said == [
        "champion is now version 1: top-1 error 36.6667 %",
        "champion stays version 1: 36.6667 % against 36.6667 %",
        "champion stays version 1: 36.6667 % against 37.0000 %",
        "champion stays version 1: it was judged on other data",
        "champion stays version 1: it was judged by 1-crop, this one by 10-crop",
        "champion is now version 6: top-1 error 36.3333 % (before: 36.6667 %)",
    ]
    assert model_registry.resolve("resnet@champion") == ("/better", "6")
    tags = api.get_model_version("resnet", "6").tags
    assert (tags["protocol"], float(tags["top1_error"]), tags["top1_wrong"]) == ("1-crop", 109 / 3, "109")


def test_a_champion_of_an_older_version_of_this_program_is_compared_by_its_count(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It noted 110 of 300 as 36.6667 %, which 36.666... is below."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    api.create_registered_model("older")
    tags = {"top1_error": "36.6667", "data": "d1", "protocol": "single"}
    version = api.create_model_version("older", "/old", tags=tags).version
    api.set_registered_model_alias("older", "champion", version)
    assert registered(api, "older", "/equal", judged(110))[1].startswith("champion stays version 1")
    assert registered(api, "older", "/better", judged(109))[1].startswith("champion is now version 3")


def test_another_data_set_gets_a_model_and_a_champion_of_its_own(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    model_registry.model_name(api, None, judged(0))
    birds, more = judged(9, data="d3"), judged(9, data="d4")
    birds, more = (model_registry.Judged(**{**vars(by), "name": "birds, 10 held out"}) for by in (birds, more))
    name = model_registry.model_name(api, None, birds)
    assert name == "resnet-birds-10-held-out"
    assert model_registry.model_name(api, None, birds) == name, "the same data, the same model"
    assert model_registry.model_name(api, None, more) == f"{name}-d4", "the same folder's name, other images"
    assert model_registry.model_name(api, "mine", birds) == "mine"
    assert registered(api, name, "/birds", birds)[1] == "champion is now version 1: top-1 error 3.0000 %"


def test_what_was_registered_before_an_outage_is_not_registered_twice(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    api.create_registered_model("once")
    run_id = api.create_run(mlflow_runs.experiment(api)).info.run_id
    for _ in range(2):
        version, sentence = model_registry.register(api, run_id, "/at", judged(30), "once", lambda: ("/at", None))
        assert (version, sentence) == ("1", "champion is now version 1: top-1 error 10.0000 %")


@pytest.mark.parametrize("code", ["UNAUTHENTICATED", "REQUEST_LIMIT_EXCEEDED", "INTERNAL_ERROR", "INVALID_STATE"])
def test_no_alias_moves_and_no_canary_ends_on_an_error_of_the_store(
    store: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Every answer of the registry but "there is none" is an error."""
    from mlflow.exceptions import MlflowException, get_error_code
    from mlflow.tracking import MlflowClient

    from pipelines.models import canary_alias

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    api = mlflow_runs.client()
    name = f"guarded-{code.lower()}"
    api.create_registered_model(name)
    for folder in ("/good", "/canary"):
        registered(api, name, folder, judged(10 if folder == "/good" else 20))
    canary_alias.begin_beside(f"{name}@champion", canary_alias.Beside(["2=10%"]))
    run_id = api.create_run(mlflow_runs.experiment(api)).info.run_id

    def fails(*_: Any) -> None:
        raise MlflowException("no", error_code=get_error_code(500) if code == "INTERNAL_ERROR" else _code(code))

    with monkeypatch.context() as patch:
        for method in ("get_registered_model", "get_model_version_by_alias", "get_model_version"):
            patch.setattr(MlflowClient, method, fails)
        with pytest.raises(MlflowException):
            model_registry.register(api, run_id, "/worse", judged(99), name, lambda: ("/worse", None))
        with pytest.raises(MlflowException):
            canary_alias.end_beside(f"{name}@champion", promote=True)
        with pytest.raises(ValueError, match="cannot be looked up"):
            canary_alias.traffic(f"{name}@champion")
    aliases = api.get_registered_model(name).aliases
    assert {alias: str(version) for alias, version in aliases.items()} == {"champion": "1", "canary": "2"}


def _code(name: str) -> int:
    from mlflow.protos.databricks_pb2 import ErrorCode

    return ErrorCode.Value(name)


def test_a_deleted_model_version_or_alias_is_told_and_the_next_training_registers_anew(
    mlflow_tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shutil.copy(mlflow_tables, tmp_path)}")
    api, by = mlflow_runs.client(), model_registry.Judged(10, 100, "d", "single")

    def register(folder: str) -> str:
        name = model_registry.model_name(api, None, by)
        run_id = api.create_run(mlflow_runs.experiment(api)).info.run_id
        return model_registry.register(api, run_id, folder, by, name, lambda: (folder, None))[1]

    assert register("/one").startswith("champion is now version 1")
    api.delete_registered_model_alias("resnet", "champion")
    with pytest.raises(ValueError, match="got 'resnet@champion'; aliases of resnet: none"):
        model_registry.resolve("resnet@champion")
    assert register("/two").startswith("champion is now version 2")
    api.delete_model_version("resnet", "2")
    with pytest.raises(ValueError, match="resnet has no version 2"):
        model_registry.resolve("resnet/2")
    assert register("/three").startswith("champion is now version 3")
    api.delete_registered_model("resnet")
    with pytest.raises(ValueError, match="got 'resnet@champion'; `make train` trains and registers one"):
        model_registry.resolve("resnet@champion")
    assert register("/four").startswith("champion is now version 1")


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"data": "d1", "examples": "300", "protocol": "1-crop", "top1_wrong": "30"}, None),
        ({"data": "before", "protocol": "single"}, None),
        ({"data": "d2", "examples": "300", "protocol": "1-crop", "top1_wrong": "30"}, "on other data"),
        ({"data": "d1", "examples": "301", "protocol": "1-crop", "top1_wrong": "30"}, "on other data"),
        ({}, "on other data"),
        ({"data": "d1", "task": "detection"}, "for detection, this one for classification"),
        ({"data": "d1", "protocol": "10-crop", "top1_wrong": "30"}, "by 10-crop, this one by 1-crop"),
    ],
)
def test_two_are_compared_only_where_data_task_and_protocol_are_the_same(
    tags: dict[str, str], words: str | None
) -> None:
    assert Judged(30, 300, "d1", "1-crop", before="before").other(tags) == words


@pytest.mark.parametrize("examples", [7, 300, 360, 10_000, 50_000])
def test_an_error_in_percent_is_the_count_of_images_that_it_came_from(examples: int) -> None:
    for wrong in range(0, examples + 1, max(1, examples // 97)):
        found = Judged.by_error(100 * wrong / examples, examples, "d", "single")
        assert (found.wrong, found.wrong_of(found.tags)) == (wrong, wrong)
        older = {"top1_error": f"{found.error:.4f}"}
        assert found.wrong_of(older) == wrong, "four decimals tell 50,000 images apart"
