"""Versions that change while a replica serves: taken over, refused, tried as a canary; several models by name."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from resnet.training.checkpoint import answered, load_checkpoint, save_checkpoint
from serve.api import application
from serve.settings import Args
from serve.versions import traffic
from serve.versions.attempts import Attempts, OwnNotes, VersionRefused
from serve.versions.served_models import Models
from serve.versions.traffic import Canary, Traffic, Version
from tests.serve.conftest import Client, write_checkpoint
from tests.serve.dense_checkpoints import write_dense

Picture = Callable[..., bytes]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Version]:
    """1 and 2: sound, with stored examples; 3: like 1, with the weights of another; 4: damaged."""
    root = tmp_path_factory.mktemp("versions")
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for number in (1, 2):
        plain = load_checkpoint(write_checkpoint(root / f"plain-{number}", "cifar10-resnet8-A", 32, 10, seed=number))
        plain.examples = answered(plain, images)
        save_checkpoint(root / f"{number}", plain)
    shutil.copytree(root / "1", root / "3")
    shutil.copy(root / "2" / "model.safetensors", root / "3" / "model.safetensors")
    shutil.copytree(root / "1", root / "4")
    (root / "4" / "model.safetensors").write_bytes(b"damaged")
    return {str(n): Version(version=str(n), checkpoint=str(root / str(n))) for n in (1, 2, 3, 4)}


@pytest.fixture
def served(versions: dict[str, Version]) -> Iterator[tuple[Models, Client]]:
    own = versions["1"]
    extra = {"other": versions["2"].checkpoint}
    args = Args(**own.model_dump(), precision="float32", access_log=False, models=extra)
    models = Models.open(args, None, attempts(args))
    client = Client(application.create_application(models, args))
    yield models, client
    client.close()
    models.close()


def attempts(args: Args) -> Attempts:
    return Attempts(args, "test", OwnNotes(), lambda _: False, None)


def ask(client: Client, data: bytes) -> tuple[str, list[float]]:
    answer = client.post("/v1/predict?top_k=10", content=data)
    assert answer.status_code == 200, answer.text
    best = sorted(answer.json()["images"][0]["predictions"], key=lambda p: p["id"])
    return answer.json()["version"], [p["probability"] for p in best]


def test_another_version_takes_over_and_back(
    served: tuple[Models, Client], versions: dict[str, Version], picture: Picture
):
    models, client = served
    first = ask(client, picture(0))
    models.apply(Traffic(stable=versions["2"]))
    second = ask(client, picture(0))
    assert (first[0], second[0]) == ("1", "2")
    assert np.abs(np.subtract(first[1], second[1])).max() > 0.01
    assert client.get("/readyz").json()["version"] == "2"
    models.apply(Traffic(stable=versions["1"]))
    assert ask(client, picture(0)) == first
    lines = client.get("/metrics").text.splitlines()
    served_requests = [line for line in lines if line.startswith("resnet_images_total")]
    assert sorted(line.rpartition(" ")[2] for line in served_requests) == ["0.0", "1.0", "1.0", "1.0"]


@pytest.mark.parametrize(("bad", "reason"), [("3", "3 stored examples differ by up to"), ("4", "is damaged")])
def test_a_bad_version_is_refused_and_the_old_one_stays(
    served: tuple[Models, Client], versions: dict[str, Version], picture: Picture, bad: str, reason: str
):
    models, client = served
    first = ask(client, picture(0))
    models.apply(Traffic(stable=versions[bad]))
    assert ask(client, picture(0)) == first
    refused = client.get("/v1/model").json()["refused"]
    assert refused.startswith(f"version {bad}: ")
    assert reason in refused
    models.apply(Traffic(stable=versions["1"], beside=(Canary(**versions[bad].model_dump(), percent=50),)))
    assert models.trial is None
    assert ask(client, picture(0)) == first
    models.apply(Traffic(stable=versions["2"]))
    assert client.get("/v1/model").json()["refused"] is None


def test_a_replica_that_starts_when_a_bad_version_is_wanted_serves_its_own(versions: dict[str, Version]):
    args = Args(**versions["1"].model_dump(), precision="float32")
    models = Models.open(args, versions["3"], attempts(args))
    models.apply(Traffic(stable=versions["3"]), starting=True)
    assert models.stable.version == "1"
    assert (models.refused or "").startswith("version 3: ")
    models.close()
    bad = Args(**versions["4"].model_dump())
    with pytest.raises(VersionRefused, match="is damaged"):
        Models.open(bad, None, attempts(bad))


def test_a_canary_answers_its_share_and_takes_over(
    served: tuple[Models, Client], versions: dict[str, Version], picture: Picture
):
    models, client = served
    canary = Canary(**versions["2"].model_dump(), percent=30)
    models.apply(Traffic(stable=versions["1"], beside=(canary,)))
    images = [picture(seed) for seed in range(40)]
    answers = [ask(client, data) for data in images]
    again = [ask(client, data) for data in images]
    assert [version for version, _ in again] == [version for version, _ in answers]  # an image keeps its version
    # Images that are compared with the canary come in between, and a batch of two is rounded otherwise than one alone.
    assert np.array([found for _, found in again]) == pytest.approx(np.array([found for _, found in answers]), abs=0.02)
    expected = ["2" if traffic.answering(data, [canary]) else "1" for data in images]
    assert [version for version, _ in answers] == expected
    assert set(expected) == {"1", "2"}
    assert client.get("/v1/model").json()["beside"] == [
        {"version": "2", "percent": 30, "shadow": False, "promote_after": None}
    ]
    trial = models.trial
    assert trial is not None
    deadline = time.monotonic() + 20
    while (found := trial.comparisons()[0]).compared < 2 * expected.count("2") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (found.stable.requests, found.canary.requests) == (2 * expected.count("1"), 2 * expected.count("2"))
    assert found.compared == found.canary.requests
    assert found.difference > 0
    models.apply(Traffic(stable=versions["2"]))
    assert models.trial is None
    assert models.stable is trial.beside[canary]  # it is not loaded a second time
    assert ask(client, images[0])[0] == "2"


def test_what_the_canary_fails_at_the_stable_version_answers(
    served: tuple[Models, Client], versions: dict[str, Version], picture: Picture
):
    models, client = served
    canary = Canary(**versions["2"].model_dump(), percent=99)
    models.apply(Traffic(stable=versions["1"], beside=(canary,)))
    trial = models.trial
    assert trial is not None
    trial.beside[canary].inference._batcher.close()  # whatever comes to it now fails
    assert {ask(client, picture(seed))[0] for seed in range(5)} == {"1"}
    assert trial.comparisons()[0].canary.errors >= 4
    assert client.post("/v1/predict", content=b"no image").status_code == 400


def test_other_models_and_versions_have_their_own_path(served: tuple[Models, Client], versions: dict[str, Version]):
    models, client = served
    pixels = {"name": "pixels", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [9.0] * 3072}
    body = {"inputs": [pixels], "outputs": [{"name": "probabilities"}]}

    def infer(path: str) -> tuple[str, list[float]]:
        answer = client.post(f"/v2/models/{path}/infer", json=body).json()
        return f"{answer['model_name']}/{answer['model_version']}", answer["outputs"][0]["data"]

    own, other = infer("resnet"), infer("other")
    assert (own[0], other[0]) == ("resnet/1", "other/unregistered")
    assert own[1] != other[1]
    assert client.get("/v2/models/other").json()["name"] == "other"
    assert client.get("/v2/models/third").json()["detail"] == "model must be resnet or other, got third"
    models.apply(Traffic(stable=versions["1"], beside=(Canary(**versions["2"].model_dump(), percent=1),)))
    assert infer("resnet/versions/2")[1] == other[1]
    assert infer("resnet/versions/1")[1] == own[1]


def test_versions_beside_it_come_and_go_and_the_ones_that_stay_are_not_loaded_anew(
    served: tuple[Models, Client], versions: dict[str, Version]
):
    models, client = served
    two = Canary(**versions["2"].model_dump(), percent=30)
    copy = Canary(version="5", checkpoint=versions["1"].checkpoint, percent=100, shadow=True)
    models.apply(Traffic(stable=versions["1"], beside=(two, copy)))
    trial = models.trial
    assert trial is not None
    first = dict(trial.beside)
    told = client.get("/v1/model").json()["beside"]
    assert [(each["version"], each["percent"], each["shadow"]) for each in told] == [("2", 30, False), ("5", 100, True)]
    models.apply(Traffic(stable=versions["2"], beside=(copy,)))  # the canary takes over, the shadow stays
    assert models.trial is not None
    assert (models.stable, models.trial.stable) == (first[two], first[two])
    assert models.trial.beside == {copy: first[copy]}  # pyright: ignore[reportUnhashable]
    left = [loaded for _, loaded in models._left]
    assert [loaded.version for loaded in left] == ["1"]
    models.apply(Traffic(stable=versions["2"]))
    assert models.trial is None
    assert [loaded.version for _, loaded in models._left] == ["1", "5"]


def test_a_version_of_another_task_is_refused_by_a_sentence(
    served: tuple[Models, Client], versions: dict[str, Version], picture: Picture, tmp_path: Path
):
    models, client = served
    detector = Version(version="9", checkpoint=str(write_dense(tmp_path / "net", "detection")))
    models.apply(Traffic(stable=detector))
    why = "resnet answers classification, and it is of detection: serve it by another name"
    assert models.refused == f"version 9: {why}"
    assert ask(client, picture(0))[0] == "1"
    models.apply(Traffic(stable=versions["1"], beside=(Canary(**detector.model_dump(), percent=50),)))
    assert models.refused == f"version 9: {why}"
    assert models.trial is None
