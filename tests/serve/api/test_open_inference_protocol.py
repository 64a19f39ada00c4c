"""The Open Inference Protocol, asked by NVIDIA's own client."""

import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.api import open_inference_protocol
from serve.inference.classifier import Classifier
from serve.problems import Problem

triton: Any = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
Picture = Callable[..., bytes]


@pytest.fixture
def client(live: str) -> Iterator[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own
        made = triton.InferenceServerClient(live.removeprefix("http://"))
        yield made
        made.close()


def as_bytes(images: list[bytes], binary: bool = True) -> Any:
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_), binary_data=binary)
    return tensor


def expected(classifier: Classifier, images: list[bytes]) -> np.ndarray:
    return np.stack([a.probabilities for a in classifier.run_batch([classifier.crop(i) for i in images])])


def test_health_and_metadata(client: Any):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("resnet")
    assert client.is_model_ready("resnet", "7")
    assert not client.is_model_ready("resnet", "8")
    assert client.get_server_metadata()["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "statistics",
    ]
    told = client.get_model_metadata("resnet")
    assert told["versions"] == ["7"]
    assert [(i["name"], i["datatype"], i["shape"]) for i in told["inputs"]] == [
        ("image", "BYTES", [-1]),
        ("pixels", "FP32", [-1, 3, 32, 32]),
    ]
    assert [o["shape"] for o in told["outputs"]] == [[-1, 10], [-1, 64]]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_output", [True, False])
def test_encoded_images(
    client: Any, classifier: Classifier, picture: Picture, binary_output: bool, compression: str | None
):
    images = [picture(seed) for seed in range(3)]
    wanted = [triton.InferRequestedOutput(name, binary_data=binary_output) for name in ("probabilities", "embedding")]
    answer = client.infer(
        "resnet", [as_bytes(images)], "7", wanted, request_id="42", request_compression_algorithm=compression
    )
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected(classifier, images), atol=1e-6)
    np.testing.assert_allclose(answer.as_numpy("embedding"), classifier.embed(images), rtol=1e-4, atol=1e-5)
    assert answer.get_response()["id"] == "42"


@pytest.mark.parametrize("binary", [True, False])
def test_preprocessed_pixels(client: Any, classifier: Classifier, picture: Picture, binary: bool):
    images = [picture(seed) for seed in range(2)]
    pixels = np.stack([classifier.crop(i) for i in images]).transpose(0, 3, 1, 2).astype(np.float32)
    tensor = triton.InferInput("pixels", list(pixels.shape), "FP32")
    tensor.set_data_from_numpy(pixels, binary_data=binary)
    answer = client.infer("resnet", [tensor])
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected(classifier, images), atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_classification_extension(client: Any, classifier: Classifier, picture: Picture, binary: bool):
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    answer = client.infer("resnet", [as_bytes([picture(0), picture(1)])], outputs=[wanted])
    labels = answer.as_numpy("probabilities")
    assert labels.shape == (2, 3)
    for row, best in zip(labels, classifier.predict([picture(0), picture(1)], 3), strict=True):
        texts = [text.decode() if isinstance(text, bytes) else text for text in row]
        assert [text.split(":")[1:] for text in texts] == [[str(p.image_class.id), p.image_class.name] for p in best]


def test_errors_reach_the_client_in_words(client: Any, picture: Picture):
    with pytest.raises(triton.InferenceServerException, match="model must be resnet, got other"):
        client.get_model_metadata("other")
    with pytest.raises(triton.InferenceServerException, match="image 2 of 2: an image must be JPEG"):
        client.infer("resnet", [as_bytes([picture(0), b"none"])])
    with pytest.raises(triton.InferenceServerException, match="outputs must be among"):
        client.infer("resnet", [as_bytes([picture(0)])], outputs=[triton.InferRequestedOutput("logits")])


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_of_eight_bits(client: Any, classifier: Classifier, picture: Picture, binary: bool):
    images = [picture(seed) for seed in range(2)]
    pixels = np.stack([classifier.crop(i) for i in images]).transpose(0, 3, 1, 2)
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(np.ascontiguousarray(pixels), binary_data=binary)
    answer = client.infer("resnet", [tensor])
    np.testing.assert_allclose(answer.as_numpy("probabilities"), expected(classifier, images), atol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_encoded_images_as_bytes_of_one_length(client: Any, classifier: Classifier, picture: Picture, binary: bool):
    images = [picture(1), picture(2, 60, 40)]
    longest = max(map(len, images))
    rows = np.stack([np.frombuffer(image.ljust(longest, b"\0"), np.uint8) for image in images])
    for sent, of in ((rows, images), (np.frombuffer(images[0], np.uint8), images[:1])):
        tensor = triton.InferInput("image", list(sent.shape), "UINT8")
        tensor.set_data_from_numpy(sent, binary_data=binary)
        answer = client.infer("resnet", [tensor])
        np.testing.assert_allclose(answer.as_numpy("probabilities"), expected(classifier, of), atol=1e-6)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_answers_are_packed_for_a_client_that_asks(
    client: Any, classifier: Classifier, picture: Picture, compression: str
):
    images = [picture(seed) for seed in range(32)]  # 32 embeddings of 64 numbers: 8 KiB
    answer = client.infer("resnet", [as_bytes(images)], response_compression_algorithm=compression)
    np.testing.assert_allclose(answer.as_numpy("embedding"), classifier.embed(images), rtol=1e-4, atol=1e-5)


def test_configuration_repository_and_statistics(client: Any, picture: Picture):
    config = client.get_model_config("resnet")
    assert (config["name"], config["max_batch_size"]) == ("resnet", 0)
    assert [(i["name"], i["data_type"], i["dims"], i["optional"]) for i in config["input"]] == [
        ("image", "TYPE_STRING", [-1], True),
        ("pixels", "TYPE_FP32", [-1, 3, 32, 32], True),
    ]
    assert client.get_model_config("resnet", "7") == config
    assert client.get_model_repository_index() == [{"name": "resnet", "version": "7", "state": "READY", "reason": ""}]
    for change in (client.load_model, client.unload_model):
        with pytest.raises(triton.InferenceServerException, match="resnet cannot be loaded or unloaded by a request"):
            change("resnet")

    def counted(name: str = "", version: str = "") -> dict[str, Any]:
        (found,) = client.get_inference_statistics(name, version)["model_stats"]
        return found

    before = counted()
    client.infer("resnet", [as_bytes([picture(seed) for seed in range(3)])])
    with pytest.raises(triton.InferenceServerException):
        client.infer("resnet", [as_bytes([b"none"])])
    after = counted("resnet", "7")
    assert (after["name"], after["version"]) == ("resnet", "7")
    assert after["inference_count"] - before["inference_count"] == 3
    assert 1 <= after["execution_count"] - before["execution_count"] <= 3
    stats = after["inference_stats"]
    assert stats["success"]["count"] == after["inference_count"] == stats["queue"]["count"]
    assert stats["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    parts = [stats[name]["ns"] for name in ("queue", "compute_input", "compute_infer")]
    assert stats["success"]["ns"] == sum(parts)
    assert min(parts) > 0


def test_members_that_are_null_are_absent(live: str, classifier: Classifier, picture: Picture):
    data = classifier.crop(picture(4)).transpose(2, 0, 1)[None]
    tensor = {"name": "pixels", "shape": list(data.shape), "datatype": "UINT8", "data": data.tolist()}
    nulls = {"binary_data_size": None, "binary_data": None, "binary_data_output": None, "classification": None}
    for inner, outer in (
        ({"parameters": None}, {"id": None, "parameters": None, "outputs": None}),
        ({"parameters": nulls}, {"parameters": nulls | {"unknown": None}, "outputs": []}),
        ({}, {"outputs": [{"name": "probabilities", "parameters": None, "datatype": None, "shape": None}]}),
    ):
        answer = httpx.post(f"{live}/v2/models/resnet/infer", json={"inputs": [tensor | inner]} | outer)
        assert answer.status_code == 200, answer.text
        found = answer.json()["outputs"][0]["data"]
        np.testing.assert_allclose(found, expected(classifier, [picture(4)])[0], atol=1e-6)


def test_base64_in_json(live: str, classifier: Classifier, picture: Picture):
    import base64

    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(picture(4)).decode()]}
    answer = httpx.post(f"{live}/v2/models/resnet/infer", json={"inputs": [tensor]}).json()
    np.testing.assert_allclose(answer["outputs"][0]["data"], expected(classifier, [picture(4)])[0], atol=1e-6)


def pixels(**changes: Any) -> dict[str, Any]:
    return {"name": "pixels", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [0.0] * 12} | changes


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([], "inputs"),
        ([pixels(name="other")], "must be one of image and pixels"),
        ([pixels(), pixels()], "must be one of image and pixels"),
        ([pixels(shape=[2, 3, 2, 2])], "must have 24 numbers"),
        ([pixels(shape=[1, 3, 4, 4])], r"must be FP32 or UINT8 \(N, 3, 2, 2\)"),
        ([pixels(datatype="FP64")], "must be FP32"),
        ([pixels(shape=[0, 3, 2, 2], data=[])], "must be FP32"),
        ([pixels(datatype="UINT8", data=[256] * 12)], "must have 12 whole numbers from 0 to 255"),
        ([pixels(datatype="UINT8", data=[0.5] * 12)], "must have 12 whole numbers"),
        ([pixels(datatype="UINT8", data=[-1] * 12)], "must have 12 whole numbers"),
        ([{"name": "image", "shape": [1, 1, 2], "datatype": "UINT8", "data": [1, 2]}], r"shape \(bytes\) or \(N, by"),
        ([{"name": "image", "shape": [0], "datatype": "UINT8", "data": []}], r"shape \(bytes\) or \(N, bytes\)"),
        ([{"name": "image", "shape": [3], "datatype": "UINT8", "data": [1, 2]}], "must have 3 whole numbers"),
        ([{"name": "image", "shape": [1], "datatype": "FP32", "data": [1]}], "must be BYTES or UINT8"),
        ([pixels(data=[300.0] * 12)], "from 0 to 255"),
        ([pixels(data=[None] * 12)], "pixels must"),
        ([pixels(data=["a"] * 12)], "must have 12 numbers"),
        ([pixels(data=[10**400] * 12)], "must"),
        ([pixels(data=None)], "either data or binary_data_size"),
        ([pixels(data=None, parameters={"binary_data_size": 48})], "48 bytes behind the JSON"),
        ([pixels(data=None, parameters={"binary_data_size": -1})], "binary_data_size"),
        ([{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["not base64!"]}], "base64"),
        (
            [{"name": "image", "shape": [2], "datatype": "BYTES", "data": ["aGk="]}],
            r"must have 2 elements for shape \[2\], got 1",
        ),
    ],
)
def test_wrong_requests_are_named(inputs: list[dict[str, Any]], words: str):
    with pytest.raises(Problem, match=words) as caught:
        open_inference_protocol.parse_request(json.dumps({"inputs": inputs}).encode(), None, 2)
    assert caught.value.status == 400


IMAGE = json.dumps(
    {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 12}}]}
).encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.one_of(st.none(), st.integers(-5, 200).map(str), st.text(max_size=5)))
def test_any_bytes_behind_the_json_are_a_problem_or_whole_elements(tail: bytes, length: str | None):
    statuses = set()
    for header_length in (length, str(len(IMAGE))):
        try:
            asked = open_inference_protocol.parse_request(IMAGE + tail, header_length, 2)
        except Problem as problem:
            statuses.add(problem.status)
        else:
            assert [bytes(i) for i in asked.images] == [tail[4:]]
    assert statuses <= {400}
