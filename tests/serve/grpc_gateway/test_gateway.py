"""gRPC as Triton's own client speaks it: the same answers, limits, keys and errors as over HTTP."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from serve.grpc_gateway.gateway import listening_for_grpc
from serve.grpc_gateway.messages import messages
from serve.inference.classifier import Classifier
from tests.serve.conftest import application, listening

triton: Any = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
Picture = Callable[..., bytes]


@contextlib.contextmanager
def connected(url: str, **options: Any) -> Iterator[Any]:
    limits = {"max_bytes": 16 * 2**20, "timeout": 10.0} | options
    with listening_for_grpc(url, "127.0.0.1", 0, **limits) as port, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client's own
        client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        yield client
        client.close()


@pytest.fixture(scope="module")
def client(live: str) -> Iterator[Any]:
    with connected(live) as made:
        yield made


def as_bytes(images: list[bytes]) -> Any:
    tensor = triton.InferInput("image", [len(images)], "BYTES")
    tensor.set_data_from_numpy(np.array(images, dtype=np.object_))
    return tensor


def test_health_metadata_configuration_statistics_and_repository(client: Any):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("resnet")
    assert not client.is_model_ready("resnet", "8")
    assert "statistics" in client.get_server_metadata().extensions
    told = client.get_model_metadata("resnet", "7")
    assert [(t.name, t.datatype, list(t.shape)) for t in told.inputs] == [
        ("image", "BYTES", [-1]),
        ("pixels", "FP32", [-1, 3, 32, 32]),
    ]
    config = client.get_model_config("resnet", as_json=True)["config"]
    assert [(t["name"], t["data_type"], t["optional"]) for t in config["input"]] == [
        ("image", "TYPE_STRING", True),
        ("pixels", "TYPE_FP32", True),
    ]
    assert client.get_inference_statistics("resnet").model_stats[0].version == "7"
    assert [(m.name, m.state) for m in client.get_model_repository_index().models] == [("resnet", "READY")]


def test_images_and_pixels_give_the_classifier_s_answers(client: Any, classifier: Classifier, picture: Picture):
    images = [picture(seed) for seed in range(3)]
    crops = [classifier.crop(image) for image in images]
    expected = np.stack([answer.probabilities for answer in classifier.run_batch(crops)])
    pixels = np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))
    floats, eight = (triton.InferInput("pixels", list(pixels.shape), kind) for kind in ("FP32", "UINT8"))
    floats.set_data_from_numpy(pixels.astype(np.float32))
    eight.set_data_from_numpy(pixels)
    for tensor in (as_bytes(images), floats, eight):
        answer = client.infer("resnet", [tensor], request_id="42")
        np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
        assert answer.as_numpy("embedding").shape == (3, 64)
        assert answer.get_response().id == "42"
    labels = client.infer(
        "resnet", [as_bytes(images)], "7", [triton.InferRequestedOutput("probabilities", class_count=2)]
    ).as_numpy("probabilities")
    assert [text.split(b":")[1] for text in labels[:, 0]] == [str(row.argmax()).encode() for row in expected]


def test_contents_that_are_no_raw_bytes_as_kserve_s_client_sends_them(
    client: Any, classifier: Classifier, picture: Picture
):
    crop = classifier.crop(picture(1))
    expected = classifier.run_batch([crop])[0].probabilities
    flat = crop.transpose(2, 0, 1)
    for name, datatype, shape, contents in (
        ("image", "BYTES", [1], {"bytes_contents": [picture(1)]}),
        ("pixels", "FP32", [1, *flat.shape], {"fp32_contents": flat.ravel().astype(float).tolist()}),
        ("pixels", "UINT8", [1, *flat.shape], {"uint_contents": flat.ravel().tolist()}),
    ):
        tensor = {"name": name, "datatype": datatype, "shape": shape, "contents": contents}
        request = triton.service_pb2.ModelInferRequest(model_name="resnet", inputs=[tensor])
        raw = client._client_stub.ModelInfer(request).raw_output_contents[0]
        np.testing.assert_allclose(np.frombuffer(raw, "<f4"), expected, atol=1e-6)


def refused(call: Callable[[], Any]) -> tuple[str, str]:
    with pytest.raises((triton.InferenceServerException, grpc.RpcError)) as told:
        call()
    error: Any = told.value
    return (error.status(), error.message()) if hasattr(error, "message") else (str(error.code()), error.details())


def test_errors_are_those_of_http_in_words(client: Any, picture: Picture):
    infer = lambda *tensors, model="resnet": client.infer(model, list(tensors))  # noqa: E731
    for call, code, words in (
        (lambda: infer(as_bytes([picture(0), b"none"])), "INVALID_ARGUMENT", "image 2 of 2: an image must be JPEG"),
        (lambda: infer(as_bytes([picture(0)]), model="other/x"), "NOT_FOUND", "/v2/models/other"),
        (lambda: client.get_model_metadata("other"), "NOT_FOUND", "model must be resnet, got other"),
        (lambda: infer(as_bytes([b"x"] * 33)), "INVALID_ARGUMENT", "at most 32 images, got 33"),
        (lambda: client.load_model("resnet"), "UNIMPLEMENTED", ""),
    ):
        status, message = refused(call)
        assert status == f"StatusCode.{code}"
        assert words in message
    request = triton.service_pb2.ModelInferRequest(
        model_name="resnet", inputs=[{"name": "pixels", "datatype": "FP64", "shape": [1]}]
    )
    assert "must be FP32, UINT8, BYTES, got FP64" in refused(lambda: client._client_stub.ModelInfer(request))[1]


def test_keys_and_limits_hold_before_a_message_is_read(
    classifier: Classifier, cifar: Path, picture: Picture, tmp_path: Path
):
    keys = tmp_path / "keys"
    keys.write_text(f"ann {'a' * 20}\n")
    app, inference = application(classifier, cifar, api_key_file=str(keys), max_bytes=50_000)
    with listening(app) as url, connected(url, api_key_file=str(keys), max_bytes=50_000) as client:
        assert client.is_server_live()
        for headers, words in (({}, "a key is needed"), ({"x-api-key": "wrong"}, "the key is not known")):
            ask = lambda headers=headers: client.infer("resnet", [as_bytes([picture(0)])], headers=headers)  # noqa: E731
            status, message = refused(ask)
            assert (status, words in message) == ("StatusCode.UNAUTHENTICATED", True)
        for headers in ({"x-api-key": "a" * 20}, {"authorization": f"Bearer {'a' * 20}"}):
            answer = client.infer("resnet", [as_bytes([picture(0)])], headers=headers)
            assert answer.as_numpy("probabilities").shape == (1, 10)
        good = {"x-api-key": "a" * 20}
        for size, code in ((60_000, "INVALID_ARGUMENT"), (10**6, "RESOURCE_EXHAUSTED")):
            ask = lambda size=size: client.infer("resnet", [as_bytes([b"x" * size])], headers=good)  # noqa: E731
            assert refused(ask)[0] == f"StatusCode.{code}"
    inference.close()


def test_an_endpoint_that_is_gone_is_unavailable(picture: Picture):
    with connected("http://127.0.0.1:9") as client:
        status, message = refused(lambda: client.infer("resnet", [as_bytes([picture(0)])]))
    assert (status, "the endpoint does not answer" in message) == ("StatusCode.UNAVAILABLE", True)


def test_messages_stand_beside_those_of_the_client():
    ours, theirs = messages()["ModelInferRequest"], triton.service_pb2.ModelInferRequest
    made = theirs(model_name="resnet", parameters={"priority": {"int64_param": 3}}, raw_input_contents=[b"x"])
    read = ours.FromString(made.SerializeToString())
    assert (read.model_name, read.parameters[0].key, read.parameters[0].value.int64_param) == ("resnet", "priority", 3)
