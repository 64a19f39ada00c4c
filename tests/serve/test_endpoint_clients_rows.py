"""What clients of other servers send, as reported to those, and what becomes of it here: one application, no Ray.

Rows 20 to 23, 54, 60, 63, 65 to 67 of the list of faults have their tests beside the modules; each stands here once
more as a client meets it, with its outcome, and below it five siblings from the threads of Triton, KServe, TorchServe,
TensorFlow Serving and BentoML.
"""

import base64
import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.conftest import draw

ROUTE = "/v1/predict"
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
IMAGE = draw(1)
CODED = base64.b64encode(IMAGE).decode()


def part(head: str, data: bytes = IMAGE) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n--b--\r\n"


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "shape": [1], "datatype": "BYTES", "data": [CODED]} | changes


def v2(given: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"method": "POST", "path": "/v2/models/resnet/infer", "json": {"inputs": [given]} | more}


# row or thread: (request, status, words of the answer)
ROWS: dict[str, tuple[dict[str, Any], int, str]] = {
    "20 nulls": (v2(tensor(parameters=None), outputs=None, parameters=None, id=None), 200, '"probabilities"'),
    "21 HEAD": ({"method": "HEAD", "path": "/healthz"}, 200, ""),
    "21 slash": ({"method": "POST", "path": f"{ROUTE}/", "content": IMAGE}, 200, '"predictions"'),
    "22 only filename*": (
        {"method": "POST", "path": ROUTE, "headers": FORM, "content": part("name=i; filename*=UTF-8''a.jpg")},
        200,
        '"predictions"',
    ),
    "22 no filename": ({"method": "POST", "path": ROUTE, "headers": FORM, "content": part("name=i")}, 200, "class"),
    "22 two members": (
        {
            "method": "POST",
            "path": ROUTE,
            "headers": {"Content-Encoding": "gzip"},
            "content": gzip.compress(IMAGE[:99]) + gzip.compress(IMAGE[99:]),
        },
        200,
        '"predictions"',
    ),
    "23 config": ({"method": "GET", "path": "/v2/models/resnet/config"}, 200, '"max_batch_size":0'),
    "23 statistics": ({"method": "GET", "path": "/v2/models/resnet/stats"}, 200, '"inference_count"'),
    "23 index": ({"method": "POST", "path": "/v2/repository/index"}, 200, '"READY"'),
    "23 UINT8": (v2(tensor(datatype="UINT8", shape=[1, len(IMAGE)], data=list(IMAGE))), 200, '"probabilities"'),
    "60 references": ({"method": "GET", "path": "/openapi.json"}, 200, '"#/components/schemas/RequestHeader"'),
    "63 damaged": (
        {"method": "POST", "path": ROUTE, "content": IMAGE[:-300]},
        400,
        "an image must be complete, got JPEG",
    ),
    "63 JSON": (
        {"method": "POST", "path": ROUTE, "json": {"instances": [{"b64": CODED}]}},
        422,
        'a body of JSON must be {\\"image\\": \\"BASE64\\"}',
    ),
    "63 JSON of an image": ({"method": "POST", "path": ROUTE, "json": {"image": CODED}}, 200, '"predictions"'),
    "63 33 files": (
        {"method": "POST", "path": ROUTE, "files": [("i", (f"{i}", IMAGE)) for i in range(33)]},
        413,
        "at most 32 images, got 33",
    ),
    "63 version": (
        {"method": "GET", "path": "/v2/models/resnet/versions/9"},
        404,
        "version of resnet must be 7, got 9",
    ),
    "65 one of two": (
        {"method": "POST", "path": ROUTE, "files": [("i", ("a", IMAGE)), ("i", ("b", b"none"))]},
        200,
        '"predictions":[],"error":{"status":400,',
    ),
    "65 topk": ({"method": "POST", "path": f"{ROUTE}?topk=3", "content": IMAGE}, 422, "did you mean top_k?"),
    "66 documentation": ({"method": "GET", "path": "/docs"}, 200, "curl --data-binary @photo.jpg"),
    # kserve/kserve#2746 and #3478: BYTES as a plain string was once valid there, and shape a number in its examples
    "sibling 1: data is a string": (v2(tensor(data=CODED)), 200, '"probabilities"'),
    "sibling 1: shape is a number": (v2(tensor(shape=1)), 400, "inputs.0.shape must be a valid array, got 1"),
    # pytorch/serve#1153: `curl -T kitten.jpg`, as its documentation has it, is a PUT; its paths, KServe's V1
    "sibling 2: curl -T": (
        {"method": "PUT", "path": ROUTE, "content": IMAGE},
        405,
        "takes POST, not PUT; curl -T sends",
    ),
    "sibling 2: its path": (
        {"method": "POST", "path": "/predictions/resnet", "content": IMAGE},
        404,
        "TorchServe's path is /v1/predict here",
    ),
    "sibling 2: V1 of KServe": (
        {"method": "POST", "path": "/v1/models/resnet:predict", "json": {}},
        404,
        "ask /v2/models/NAME/infer, or /v1/predict",
    ),
    # bentoml/BentoML#387: requests' files= with a Content-Type of one's own, which lacks the boundary, was a 500
    "sibling 3: no boundary": (
        {
            "method": "POST",
            "path": ROUTE,
            "headers": {"Content-Type": "multipart/form-data"},
            "content": part("name=i"),
        },
        400,
        "must name its boundary; let the HTTP library write it",
    ),
    # triton-inference-server/server#2736: what is not unpacked is a 415 that names what is
    "sibling 4: Content-Encoding": (
        {"method": "POST", "path": ROUTE, "headers": {"Content-Encoding": "zstd"}, "content": IMAGE},
        415,
        "Content-Encoding must be gzip, deflate or identity, got 'zstd'",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_row(row: str, live: str):
    asked, status, words = ROWS[row]
    method, path, rest = asked["method"], asked["path"], {k: v for k, v in asked.items() if k not in ("method", "path")}
    answer = httpx.request(method, f"{live}{path}", timeout=60, **rest)
    assert answer.history == []
    assert answer.status_code == status, answer.text
    assert words in answer.text
    if status == 415:
        assert answer.headers["accept-encoding"] == "gzip, deflate"


def curl(*words: str, folder: Path) -> dict[str, Any]:
    done = subprocess.run(["curl", "-sS", *words], cwd=folder, capture_output=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_curl_as_people_write_it(live: str, tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(IMAGE)
    (tmp_path / "photo.b64").write_text(base64.encodebytes(IMAGE).decode())
    url, one = (
        f"{live}{ROUTE}",
        [p["id"] for p in httpx.post(f"{live}{ROUTE}", content=IMAGE).json()["images"][0]["predictions"]],
    )
    for words in (
        ("--data-binary", "@photo.jpg"),
        ("-T", "photo.jpg", "-X", "POST"),
        ("-F", "image=@photo.jpg"),
        ("-F", "image=<photo.jpg"),
        ("-F", "image=@photo.jpg;type=image/jpeg;filename=ä.jpg"),
        ("--data-binary", "@photo.jpg", "-H", "Expect: 100-continue"),
        ("--data-binary", "@photo.jpg", "-H", "Transfer-Encoding: chunked"),
        ("--data-binary", "@photo.jpg", "--http1.0"),
        ("--data-binary", "@photo.jpg", "--compressed"),
        ("-L", "--data-binary", "@photo.jpg"),
    ):
        told = curl(*words, url, folder=tmp_path)
        assert [p["id"] for p in told["images"][0]["predictions"]] == one, words
    mangled = curl("-d", "@photo.jpg", url, folder=tmp_path)  # -d drops line ends and what follows a NUL
    assert mangled["status"] == 400
    assert mangled["detail"].endswith("if curl sent it: -d changes the bytes, --data-binary keeps them")


def test_sibling_5_an_answer_that_is_packed_says_so(live: str, tmp_path: Path):
    """triton-inference-server/server#5185: gzip without Content-Encoding; curl --compressed and browsers failed."""
    (tmp_path / "photo.jpg").write_bytes(IMAGE)
    images = [word for _ in range(16) for word in ("-F", "image=@photo.jpg")]
    told = curl("--compressed", *images, f"{live}/v1/embed", folder=tmp_path)
    assert [len(image["embedding"]) for image in told["images"]] == [64] * 16


def test_row_65_the_id_is_one_in_body_and_header(live: str):
    answer = httpx.get(f"{live}/nowhere", headers={"X-Request-ID": 'no "quotes"'})
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert len(answer.headers["x-request-id"]) == 32


def test_row_67_a_grpc_client_that_asks_the_http_port_gets_a_word(live: str):
    """Behind HAProxy a call of HTTP/2 arrives so; its answer reaches the client as UNIMPLEMENTED, with these words."""
    call = {"Content-Type": "application/grpc", "TE": "trailers"}
    answer = httpx.post(f"{live}/inference.GRPCInferenceService/ServerLive", headers=call, content=b"\0\0\0\0\0")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["grpc-status"] == "12"
    assert answer.headers["grpc-message"].startswith("this port speaks HTTP: use tritonclient.http, or the port of")


def test_row_54_a_mistake_is_one_sentence_before_ray_starts(cifar: Path, monkeypatch: pytest.MonkeyPatch):
    from jobs import deploy_best

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    best = ["--checkpoint", str(cifar)]
    refusals: list[tuple[list[str], Callable[[str], bool]]] = [
        (["--api-key-file", "/nope"], lambda told: told.startswith("api_key_file must be readable, got /nope")),
        (["--models", "dogs", "/nope"], lambda told: told.startswith("models dogs must be a folder with model.safet")),
        (["--gpus", "8"], lambda told: told.startswith("gpus of a replica must be at most what this machine has")),
        (["--grpc-port", "8000"], lambda told: "grpc_port must be another than port" in told),
    ]
    for words, right in refusals:
        with pytest.raises(ValueError) as told:  # noqa: PT011  compared below
            deploy_best.job([*best, *words])
        assert right(str(told.value)), told.value
