"""The HTTP interface: right answers, and problem details for everything else; no body gives a 500."""

import concurrent.futures
import gzip
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.api import pages
from serve.api.middleware import AccessLog
from serve.inference.classifier import Classifier

Clients = Callable[..., Any]
Picture = Callable[..., bytes]


def problem(answer: Any, status: int) -> str:
    """The detail of an answer that must be problem details of a status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["title"]
    assert told["request_id"] == answer.headers["x-request-id"]
    return told["detail"]


def test_predict_equals_the_classifier(clients: Clients, classifier: Classifier, picture: Picture):
    data = picture(1)
    # curl --data-binary says application/x-www-form-urlencoded: what the header claims does not count
    for kind in ("image/jpeg", "application/x-www-form-urlencoded", "text/html"):
        told = clients().post("/v1/predict?top_k=3", content=data, headers={"Content-Type": kind}).json()
        (best,) = classifier.predict([data], 3)
        assert told["model"] == "resnet"
        assert told["version"] == "7"
        predictions = told["images"][0]["predictions"]
        assert [(p["id"], p["wnid"], p["name"]) for p in predictions] == [
            (p.image_class.id, p.image_class.wnid, p.image_class.name) for p in best
        ]
        np.testing.assert_allclose([p["probability"] for p in predictions], [p.probability for p in best], atol=1e-6)


def test_several_images_in_one_form_keep_their_order(clients: Clients, classifier: Classifier, picture: Picture):
    images = [picture(seed) for seed in range(5)]
    files = [("image", (f"{seed}.jpg", data)) for seed, data in enumerate(images)]
    answer = clients().post("/v1/embed", files=files)
    told = np.array([image["embedding"] for image in answer.json()["images"]])
    np.testing.assert_allclose(told, classifier.embed(images), rtol=1e-4, atol=1e-5)
    assert set(answer.headers["server-timing"].replace(", ", ";").split(";")[::2]) == {"decode", "queue", "model"}


def test_many_requests_at_once_each_get_their_own_answer(clients: Clients, classifier: Classifier, picture: Picture):
    client = clients()
    images = [picture(seed) for seed in range(12)]
    expected = [best[0].image_class.id for best in classifier.predict(images, 1)]
    order = random.Random(0).choices(range(12), k=60)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: client.post("/v1/predict?top_k=1", content=images[i]).json(), order))
    assert [a["images"][0]["predictions"][0]["id"] for a in answers] == [expected[i] for i in order]


@pytest.mark.parametrize(
    ("path", "request_", "status", "words"),
    [
        ("/v1/predict", {"content": b""}, 400, "got no bytes"),
        ("/v1/predict", {"content": b"hello"}, 400, "must be JPEG"),
        ("/v1/predict", {"content": b"\xff\xd8\xff\xe0broken"}, 400, ""),
        ("/v1/predict", {"content": b"%PDF-1.4"}, 415, "got PDF"),
        ("/v1/predict", {"content": b"x", "headers": {"Content-Encoding": "br"}}, 415, "must be gzip"),
        ("/v1/predict", {"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 400, "Content-Encoding"),
        ("/v1/predict", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "oundary"),
        ("/v1/predict", {"data": {"a": "b"}, "files": {}}, 400, "must be JPEG"),
        ("/v1/predict", {"files": {"image": ("a.txt", b"text")}}, 400, "must be JPEG"),
        ("/v1/predict", {"files": [("i", ("a", b"x")), ("i", ("b", b"y"))]}, 400, "image 1 of 2"),
        ("/v1/predict", {"files": [("i", (str(i), b"x")) for i in range(9)]}, 413, "at most 8 images, got 9"),
        ("/v1/predict?top_k=0", {"content": b""}, 422, "top_k"),
        ("/v1/predict?top_k=many", {"content": b""}, 422, "top_k"),
        ("/v1/predict", {"content": b"0" * 100_001}, 413, "at most 100,000 bytes"),
        ("/v1/predict", {"content": gzip.compress(b"0" * 10**7), "headers": {"Content-Encoding": "gzip"}}, 413, "unpa"),
        ("/v1/nothing", {"content": b""}, 404, "/docs lists"),
    ],
)
def test_what_cannot_be_answered_is_said(
    clients: Clients, path: str, request_: dict[str, Any], status: int, words: str
):
    answer = clients(max_images=8, max_bytes=100_000).post(path, **request_)
    assert words in problem(answer, status)


def test_wrong_method_and_form_without_file(clients: Clients):
    client = clients()
    assert "takes POST" in problem(client.get("/v1/predict"), 405)
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
    assert "must have a file" in problem(client.post("/v1/predict", content=body, headers=form), 422)


def test_too_many_pixels_are_refused_and_gzip_is_unpacked(clients: Clients, picture: Picture):
    client = clients(max_pixels=120 * 90)
    assert "pixels" in problem(client.post("/v1/predict", content=picture(0, 121, 90)), 413)
    packed = gzip.compress(picture(0))
    assert client.post("/v1/predict", content=packed, headers={"Content-Encoding": "gzip"}).status_code == 200


async def endless():
    for _ in range(10_000):
        yield b"0" * 1000


def test_a_body_without_length_is_cut_at_the_limit(clients: Clients):
    assert "at most 50,000" in problem(clients(max_bytes=50_000).post("/v1/predict", content=endless()), 413)


class Slow(Classifier):
    """The same classifier, whose network waits until it is told to go on."""

    go = threading.Event()

    def run_batch(self, images):
        self.go.wait(10)
        return super().run_batch(images)


@pytest.fixture
def slow(cifar: Path) -> Classifier:
    Slow.go.set()
    model = Slow(str(cifar), precision="float32")
    Slow.go.clear()
    return model


def test_overload_is_a_503_at_once_and_everything_taken_is_answered(
    clients: Clients, slow: Classifier, picture: Picture
):
    client = clients(slow, max_waiting=4, max_images=2)
    data = picture(0)
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(client.post, "/v1/predict", content=data) for _ in range(12)]
        refused = []
        deadline = time.monotonic() + 10
        while len(refused) < 8 and time.monotonic() < deadline:
            refused = [a.result() for a in answers if a.done()]
            time.sleep(0.01)
            if len(refused) >= 8:
                Slow.go.set()
        codes = sorted(a.result().status_code for a in answers)
    assert codes == [200] * 4 + [503] * 8
    assert all(a.headers["retry-after"] == "1" for a in refused)
    assert client.post("/v1/predict", content=data).status_code == 200


def test_no_answer_in_time_is_a_504(clients: Clients, slow: Classifier, picture: Picture):
    client = clients(slow, timeout=0.2)
    assert "within 0.2 seconds" in problem(client.post("/v1/predict", content=picture(0)), 504)
    Slow.go.set()
    assert client.post("/v1/predict", content=picture(0)).status_code == 200


def test_keys_are_asked_for_where_they_are_set(clients: Clients, picture: Picture, tmp_path: Path):
    (tmp_path / "keys").write_text(f"ann {'a' * 20}\n")
    client = clients(api_key_file=str(tmp_path / "keys"))
    for path in ("/v1/model", "/v2/models/resnet", "/metrics", "/nowhere"):
        answer = client.get(path)
        assert "key is needed" in problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    for wrong in ({"Authorization": "Bearer nope"}, {"X-API-Key": "é".encode("latin-1")}):
        assert problem(client.get("/v1/model", headers=wrong), 401) == "the key is not known"
    for right in ({"Authorization": f"Bearer {'a' * 20}"}, {"X-API-Key": "a" * 20}):
        assert client.post("/v1/predict", content=picture(0), headers=right).status_code == 200
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200


def test_a_client_above_its_rate_waits(clients: Clients):
    client = clients(rate_limit=0.5, rate_burst=2)
    assert [client.get("/v1/model").status_code for _ in range(3)] == [200, 200, 429]
    answer = client.get("/v1/model")
    problem(answer, 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 2
    assert client.get("/healthz").status_code == 200


def test_the_model_says_what_it_is(clients: Clients, classifier: Classifier):
    card = clients().get("/v1/model").json()
    seen = card["preprocessing"]
    assert (seen["shorter_side"], seen["crop"], seen["interpolation"]) == (32, 32, "bilinear")
    assert len(seen["mean"]) == len(seen["std"]) == 3
    assert (card["name"], card["version"], card["network"]) == ("resnet", "7", "cifar10-resnet8-A")
    assert (card["size"], card["precision"], card["num_features"]) == (32, "float32", 64)
    assert len(card["classes"]) == 10
    assert (card["engine"], card["deviation"]) == (classifier.engine, classifier.deviation)


def test_requests_have_ids_a_log_line_and_counts(clients: Clients, picture: Picture, caplog: pytest.LogCaptureFixture):
    log = logging.getLogger("serve.access")
    log.addHandler(caplog.handler)
    secret = {"Authorization": "Bearer of-nobody-else", "X-API-Key": "of-nobody-else"}
    try:
        client = clients(access_log=True)
        given = client.post("/v1/predict", content=picture(0), headers={"X-Request-ID": "mine-1"} | secret)
        other = client.post("/v1/predict", content=b"no image", headers={"X-Request-ID": "no\ttab " * 50})
        time.sleep(4 * AccessLog.WAIT)
    finally:
        log.removeHandler(caplog.handler)
    assert "of-nobody-else" not in caplog.text
    assert given.headers["x-request-id"] == "mine-1"
    assert len(other.headers["x-request-id"]) == 32
    logged = [record.getMessage() for record in caplog.records if record.name == "serve.access"]
    lines = [json.loads(line) for line in "\n".join(logged).splitlines()]
    assert [(line["request_id"], line["status"]) for line in lines] == [
        ("mine-1", 200),
        (other.headers["x-request-id"], 400),
    ]
    assert lines[0]["bytes"] == len(picture(0))
    metrics = client.get("/metrics").text
    labels = 'model="resnet",path="/v1/predict",replica="test",version="7"'
    assert f'resnet_requests_total{{code="200",{labels}}} 1.0' in metrics
    assert f'resnet_requests_total{{code="400",{labels}}} 1.0' in metrics
    for name in (
        "resnet_phase_seconds_bucket",
        "resnet_batch_images_count",
        "resnet_replica_up",
        "resnet_images_total",
    ):
        assert name in metrics


def test_pages_are_whole_in_themselves(clients: Clients):
    client = clients()
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert answer.headers["content-type"].startswith("text/html")
        assert "http://" not in answer.text.replace("http://endpoint", "")  # which is its own
        assert "https://" not in answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert policy.count("sha256-") == answer.text.count("<script>") == (1 + len(pages.PANELS) if path == "/" else 0)


def test_openapi_names_every_route_and_error(clients: Clients):
    api = clients().get("/openapi.json").json()
    assert {"/v1/predict", "/v1/embed", "/v1/model", "/v2/models/{name}/infer", "/healthz", "/metrics"} <= set(
        api["paths"]
    )
    predict = api["paths"]["/v1/predict"]["post"]
    assert {"image/jpeg", "multipart/form-data"} <= set(predict["requestBody"]["content"])
    assert {"400", "413", "415", "422", "429", "503", "504"} <= set(predict["responses"])
    operations = [o["operationId"] for methods in api["paths"].values() for o in methods.values()]
    assert len(set(operations)) == len(operations)


HEADERS = st.dictionaries(
    st.sampled_from(["Content-Type", "Content-Encoding", "Inference-Header-Content-Length", "X-Request-ID", "Accept"]),
    st.sampled_from(
        [
            "multipart/form-data",
            "multipart/form-data; boundary=a",
            "gzip",
            "deflate",
            "7",
            "-1",
            "9" * 40,
            "é",
            "",
            "a/b",
        ]
    ).map(lambda text: text.encode("latin-1")),
    max_size=3,
)
BODIES = st.one_of(
    st.binary(max_size=300),
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP"]).flatmap(
        lambda mark: st.binary(max_size=200).map(lambda rest: mark + rest)
    ),
    st.binary(max_size=200).map(
        lambda part: b'--a\r\nContent-Disposition: form-data; name="i"; filename="f"\r\n\r\n' + part
    ),
    st.binary(max_size=200).map(gzip.compress),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["inputs", "name", "shape", "datatype", "data", "outputs"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)


# Starlette drops the spool file of a form that ends inside a part; CPython closes it at once, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_no_body_and_no_header_gives_a_500(clients: Clients):
    client = clients(max_bytes=10_000)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(["/v1/predict", "/v1/embed", "/v2/models/resnet/infer"]), BODIES, HEADERS)
    def fuzz(path: str, body: bytes, headers: dict[str, bytes]) -> None:
        answer = client.post(path, content=body, headers=headers)
        assert 400 <= answer.status_code < 500
        problem(answer, answer.status_code)

    fuzz()


def test_content_policy_changes_with_the_script():
    one, other = (pages.content_policy(f"<script>{code}</script>") for code in ("a()", "b()"))
    assert one != other
