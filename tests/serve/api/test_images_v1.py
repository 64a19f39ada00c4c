"""/v1 as clients use it: JSON, several images of which some are none, parameters that do not exist."""

import base64
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnet.evaluation.feature_distance import DISTANCE, DistanceCard, FeatureDistance
from resnet.evaluation.model_figures import FIGURES
from serve.inference.classifier import Classifier
from tests.resnet.evaluation.test_model_figures import FIGURES_OF_TWO, FOUND

Clients = Callable[..., Any]
Picture = Callable[..., bytes]


def test_json_gives_the_same_answers(clients: Clients, picture: Picture):
    client, images = clients(), [picture(seed) for seed in range(2)]
    coded = [base64.b64encode(data).decode() for data in images]
    one, two = (client.post("/v1/predict", content=data).json()["images"][0] for data in images)
    for given, expected in (
        ({"image": coded[0]}, [one]),
        ({"image": f"data:image/jpeg;base64,{coded[1]}"}, [two]),
        ({"images": coded}, [one, two]),
    ):
        told = client.post("/v1/predict", json=given).json()["images"]
        assert [[p["id"] for p in image["predictions"]] for image in told] == [
            [p["id"] for p in image["predictions"]] for image in expected
        ]
    # curl -d says application/x-www-form-urlencoded
    curl = client.post("/v1/predict", content=f' {{"image": "{coded[0]}"}}', headers={"Content-Type": "a/b"})
    assert curl.status_code == 200


def test_one_image_that_is_none_does_not_fail_the_others(clients: Clients, picture: Picture):
    client = clients()
    contents = [picture(0), b"no image", picture(1), b"%PDF-1.4", picture(2, 9000, 10)]
    files = [("image", (f"{i}", data)) for i, data in enumerate(contents)]
    for path, name in (("/v1/predict", "predictions"), ("/v1/embed", "embedding")):
        answer = client.post(path, files=files)
        assert answer.status_code == 200
        told = answer.json()["images"]
        assert [len(image[name]) > 0 for image in told] == [True, False, True, False, True]
        assert ["error" in image for image in told] == [False, True, False, True, False]
        assert [told[i]["error"]["status"] for i in (1, 3)] == [400, 415]
        assert told[3]["error"]["detail"].startswith("an image must be JPEG, PNG")
    alone = client.post("/v1/embed", content=contents[2]).json()["images"][0]["embedding"]
    assert told[2]["embedding"] == pytest.approx(alone, rel=1e-3, abs=1e-4)


def test_a_request_of_which_no_image_is_one_says_why_of_each(clients: Clients):
    answer = clients().post("/v1/predict", files=[("i", ("a", b"x")), ("i", ("b", b"%PDF-"))])
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("image 1 of 2: an image must be JPEG")
    assert [(e["image"], e["status"]) for e in answer.json()["errors"]] == [(1, 400), (2, 415)]
    assert "errors" not in clients().post("/v1/predict", content=b"x").json()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/predict?topk=3", "topk is no parameter of /v1/predict; did you mean top_k?"),
        ("/v1/predict?threshold=0.5", "threshold is no parameter of /v1/predict; it takes top_k"),
        ("/v1/predict?top_k=3&top_k=4", "top_k must be given once, got it 2 times"),
        ("/v1/embed?top_k=3", "top_k is no parameter of /v1/embed; it takes none"),
    ],
)
def test_parameters_without_effect_are_refused(clients: Clients, picture: Picture, path: str, words: str):
    answer = clients().post(path, content=picture(0))
    assert (answer.status_code, answer.json()["detail"]) == (422, words)
    assert clients().get("/v1/model?x=1").status_code == 422
    assert clients().get("/healthz?x=1").status_code == 200  # a monitor's own business


def test_a_model_with_figures_says_them_and_which_classes_are_found(
    clients: Clients, cifar: Path, picture: Picture, tmp_path: Path
):
    place = shutil.copytree(cifar, tmp_path / "with-figures")
    classes = [FOUND.model_copy(update={"id": i, "threshold": 0.0 if i % 2 else 1.0}) for i in range(9)]
    figures = FIGURES_OF_TWO.model_copy(update={"classes": tuple(classes)})
    (place / FIGURES).write_text(figures.model_dump_json())
    client = clients(Classifier(str(place), precision="float32"))
    card = client.get("/v1/model").json()["figures"]
    assert (card["split"], card["images"], len(card["classes"])) == ("test", 12, 9)
    predictions = client.post("/v1/predict?top_k=10", content=picture(0)).json()["images"][0]["predictions"]
    assert {p["id"]: p.get("found") for p in predictions} == {i: None if i == 9 else bool(i % 2) for i in range(10)}
    plain = clients()
    assert plain.get("/v1/model").json()["figures"] is None
    assert all(
        "found" not in p for p in plain.post("/v1/predict", content=picture(0)).json()["images"][0]["predictions"]
    )
    (place / FIGURES).write_text(figures.model_dump_json().replace('"id":8', '"id":10'))
    with pytest.raises(ValueError, match="must be of a network with 10 outputs, got output 10"):
        Classifier(str(place))


def test_a_model_with_a_distance_score_says_how_far_an_image_is_and_whether_it_is_unknown(
    clients: Clients, cifar: Path, picture: Picture, tmp_path: Path
):
    place = shutil.copytree(cifar, tmp_path / "with-distance")
    known = Classifier(str(cifar), precision="float32")
    embedding = known.embed([picture(0)])
    card = DistanceCard(threshold=1e-2, share=0.95, split="val", data="/shards", images=1)
    width = embedding.shape[1]
    (place / DISTANCE).write_bytes(FeatureDistance(np.eye(width, dtype=np.float32), embedding, card).to_bytes())
    client = clients(Classifier(str(place), precision="float32"))
    assert client.get("/v1/model").json()["distance"] == card.model_dump()
    same = client.post("/v1/predict", content=picture(0)).json()["images"][0]
    assert same["unknown"] is False
    assert same["distance"] == pytest.approx(0, abs=1e-3)
    other = client.post("/v1/predict", content=picture(1)).json()["images"][0]
    assert other["unknown"] is True
    assert other["distance"] == pytest.approx(float(np.linalg.norm(known.embed([picture(1)]) - embedding)), rel=1e-3)
    plain = clients()
    assert plain.get("/v1/model").json()["distance"] is None
    assert set(plain.post("/v1/predict", content=picture(0)).json()["images"][0]) == {"predictions"}
    narrow = FeatureDistance(np.eye(3, dtype=np.float32), np.ones((1, 3), np.float32), card)
    (place / DISTANCE).write_bytes(narrow.to_bytes())
    with pytest.raises(ValueError, match=f"must be of a network with {width} features, got 3"):
        Classifier(str(place))
