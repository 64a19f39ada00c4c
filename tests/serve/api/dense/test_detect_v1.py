import base64

import numpy as np
import pytest

from resnet.dense.detectors import Detections
from resnet.image_class import ImageClass
from serve.api.dense.detect_v1 import detected
from serve.inference.dense.dense_model import DenseModel, FoundObjects
from tests.serve.dense_checkpoints import client_of, write_dense


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dense(tmp_path_factory.mktemp("detector") / "net", "detection")


@pytest.fixture(scope="module")
def client(folder):
    with client_of(folder) as made:
        yield made


def test_boxes_classes_and_scores_as_the_model_gives_them(client, folder, picture):
    data, model = picture(5, 110, 90), DenseModel(str(folder))
    (wanted,) = model.run_batch([model.crop(data)])
    answer = client.post("/v1/detect?min_score=0", content=data)
    assert answer.status_code == 200
    (image,) = answer.json()["images"]
    assert (image["width"], image["height"]) == (110, 90)
    assert len(image["detections"]) == len(wanted.found.scores) > 0
    for told, box, label, score in zip(image["detections"], *wanted.found, strict=True):
        assert told == {
            "id": int(label),
            "wnid": ("cell", "plate")[label],
            "name": ("cell", "plate")[label],
            "score": pytest.approx(float(score)),
            "box": pytest.approx(box.tolist()),
        }


def test_min_score_leaves_out_the_rest():
    found = FoundObjects(10, 20, Detections(np.zeros((2, 4), np.float32), np.array([0, 1]), np.array([0.9, 0.4])))
    classes = tuple(ImageClass(id=i, wnid=n, name=n) for i, n in enumerate("ab"))
    assert [d["name"] for d in detected(found, classes, 0.5)["detections"]] == ["a"]
    assert len(detected(found, classes, 0.4)["detections"]) == 2


def test_its_card_says_the_task(client):
    card = client.get("/v1/model").json()
    assert (card["task"], card["quality"], card["top1_error"]) == ("detection", 12.5, None)
    assert client.get("/openapi.json").json()["info"]["title"].endswith("image detection with imagenet-resnet18-A")


@pytest.mark.parametrize("route", ["predict", "embed", "segment"])
def test_routes_of_other_tasks_name_the_right_one(client, picture, route):
    answer = client.post(f"/v1/{route}", content=picture(0))
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("is a model of detection, which answers /v1/detect")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v1/detect", b"no image", 400), ("/v1/detect?min_score=2", None, 422), ("/v1/detect?top_k=5", None, 422)],
)
def test_bad_requests_are_problems(client, picture, path, body, status):
    answer = client.post(path, content=body or picture(0))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_the_open_inference_protocol_fills_up_to_the_most_boxes(client, folder, picture):
    images, model = [picture(5, 110, 90), picture(6, 60, 90)], DenseModel(str(folder))
    wanted = model.stacked(model.run_batch([model.crop(data) for data in images]))
    name = client.get("/v1/model").json()["name"]
    described = client.get(f"/v2/models/{name}").json()["outputs"]
    assert {row["name"]: row["datatype"] for row in described} == {
        "boxes": "FP32",
        "labels": "INT64",
        "scores": "FP32",
        "count": "INT64",
    }
    data = [base64.b64encode(image).decode() for image in images]
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": data}]}
    outputs = {row["name"]: row for row in client.post(f"/v2/models/{name}/infer", json=body).json()["outputs"]}
    for name, values in wanted.items():
        found = np.array(outputs[name]["data"]).reshape(outputs[name]["shape"])
        assert np.allclose(found, values, atol=1e-5), name


def test_only_routes_of_its_task_are_described(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {path for path in paths if path.startswith("/v1/")} == {"/v1/detect", "/v1/model"}
    assert "/v1/detect?min_score=0.8" in client.get("/docs").text
