import base64
import io

import numpy as np
import pytest
from PIL import Image

from resnet.dense.targets import from_run_lengths
from serve.inference.dense.dense_model import DenseModel
from tests.serve.dense_checkpoints import client_of, write_dense


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_dense(tmp_path_factory.mktemp("segmenter") / "net", "segmentation")


@pytest.fixture(scope="module")
def client(folder):
    with client_of(folder) as made:
        yield made


@pytest.fixture(scope="module")
def wanted(folder, picture):
    model = DenseModel(str(folder))
    (answer,) = model.run_batch([model.crop(picture(5, 110, 90))])
    return answer.mask


def values(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_mask_as_png_and_as_run_lengths(client, picture, wanted):
    (image,) = client.post("/v1/segment", content=picture(5, 110, 90)).json()["images"]
    assert (image["width"], image["height"]) == (110, 90)
    assert np.array_equal(values(base64.b64decode(image["mask"])), wanted)
    shares = [segment["share"] for segment in image["segments"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    for segment in image["segments"]:
        mask = from_run_lengths(segment["rle"]["counts"], *segment["rle"]["size"])
        assert np.array_equal(mask, wanted == segment["id"])


def test_who_accepts_png_gets_the_mask_alone(client, picture, wanted):
    answer = client.post("/v1/segment", content=picture(5, 110, 90), headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    assert np.array_equal(values(answer.content), wanted)


def test_the_open_inference_protocol_gives_the_mask_as_a_tensor(client, picture, wanted):
    data = [base64.b64encode(picture(5, 110, 90)).decode()]
    body = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": data}]}
    name = client.get("/v1/model").json()["name"]
    (output,) = client.post(f"/v2/models/{name}/infer", json=body).json()["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("mask", "UINT8", [1, 90, 110])
    assert np.array_equal(np.array(output["data"]).reshape(90, 110), wanted)


def test_the_card_and_a_route_of_another_task(client, picture):
    card = client.get("/v1/model").json()
    assert (card["task"], card["quality"]) == ("segmentation", 62.5)
    answer = client.post("/v1/predict", content=picture(0))
    assert answer.status_code == 404
    assert answer.json()["detail"].endswith("is a model of segmentation, which answers /v1/segment")
