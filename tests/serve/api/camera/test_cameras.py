"""/v1/stream over a real server: answers are /v1/predict's, keys are asked for, limits hold, the end is told."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from serve.api.middleware import KEY_PROTOCOL
from serve.inference.classifier import Classifier
from tests.serve.api.camera.stream_client import camera, refusal, told
from tests.serve.conftest import application, listening

Picture = Callable[..., bytes]
KEY = "k" * 20


@pytest.fixture(scope="module")
def steady(classifier: Classifier, cifar: Path) -> Iterator[str]:
    """URL of an endpoint that a machine with other work does not make late."""
    app, inference = application(classifier, cifar, deadline=20_000)
    with listening(app) as url:
        yield url
    inference.close()


def test_answers_are_those_of_predict_and_an_error_ends_nothing(steady: str, classifier: Classifier, picture: Picture):
    with camera(steady, "?top_k=3") as socket:
        for number in range(1, 4):
            socket.send(picture(number))
            answer = told(socket)
            posted = httpx.post(f"{steady}/v1/predict?top_k=3", content=picture(number)).json()
            assert answer["predictions"] == posted["images"][0]["predictions"]
            assert (answer["model"], answer["version"], answer["frame"]) == ("resnet", "7", number)
            assert 0 < answer["ms"] < 20_000
        socket.send(b"no image at all")
        answer = told(socket)
        assert answer["error"]["status"] == 400
        assert answer["error"]["detail"].startswith("an image must be JPEG")
        socket.send(picture(1))
        answer = told(socket)
        assert answer["predictions"][0]["id"] == classifier.predict([picture(1)], 1)[0][0].image_class.id
        counts = {"frames": 5, "answered": 4, "refused": 1, "dropped": 0, "late": 0}
        assert {name: answer[name] for name in counts} == counts
        assert answer["interval_ms"] > 0


def test_a_key_is_asked_for_and_may_come_as_a_browsers_script_can_send_it(
    classifier: Classifier, cifar: Path, picture: Picture, tmp_path: Path
):
    (tmp_path / "keys").write_text(f"ann {KEY}\n")
    app, inference = application(classifier, cifar, deadline=20_000, api_key_file=str(tmp_path / "keys"))
    coded = base64.urlsafe_b64encode(KEY.encode()).decode().rstrip("=")
    ways: list[dict[str, Any]] = [
        {"additional_headers": {"Authorization": f"Bearer {KEY}"}},
        {"additional_headers": {"X-API-Key": KEY}},
        {"subprotocols": ["resnet.stream", KEY_PROTOCOL + coded]},
    ]
    with listening(app) as url:
        for way in ways:
            with camera(url, **way) as socket:
                assert socket.subprotocol == ("resnet.stream" if "subprotocols" in way else None)
                socket.send(picture(1))
                assert told(socket)["predictions"]
        assert refusal(url)[0] == 401
        for wrong in (coded + "AA", "=", "\u00e9".encode().hex()):
            status, problem = refusal(url, subprotocols=["resnet.stream", KEY_PROTOCOL + wrong.replace("=", "")])
            assert (status, problem["title"]) == (401, "Unauthorized")
    inference.close()


@pytest.mark.parametrize(
    ("query", "options", "status", "sentence"),
    [
        ("?top_k=0", {}, 422, "top_k must be a whole number from 1 to 1000, got '0'"),
        ("?topk=3", {}, 422, "topk is no parameter of /v1/stream; did you mean top_k?"),
        ("?top_k=3&top_k=4", {}, 422, "top_k must be given once, got it 2 times"),
        ("", {"origin": "https://elsewhere.example"}, 403, "scripts of https://elsewhere.example may not ask"),
    ],
)
def test_a_connection_that_is_refused_is_told_why(
    steady: str, query: str, options: dict[str, Any], status: int, sentence: str
):
    code, problem = refusal(steady, query, **options)
    assert (code, problem["status"]) == (status, status)
    assert problem["detail"].startswith(sentence)


def test_a_script_of_the_own_page_and_of_an_allowed_one_may_ask(classifier: Classifier, cifar: Path, picture: Picture):
    app, inference = application(classifier, cifar, deadline=20_000, cors_origins=("https://shop.example",))
    with listening(app) as url:
        for origin in (url, "https://shop.example"):
            with camera(url, origin=origin) as socket:
                socket.send(picture(1))
                assert told(socket)["predictions"]
    inference.close()


def test_limits_hold_for_frames_as_for_requests(classifier: Classifier, cifar: Path, picture: Picture):
    app, inference = application(
        classifier, cifar, deadline=20_000, max_streams=1, max_bytes=5000, rate_limit=0.01, rate_burst=4
    )
    with listening(app) as url:
        with camera(url) as socket:
            assert refusal(url)[1]["detail"] == "1 cameras are connected already; try again"
            socket.send(b"\xff" * 5001)
            assert told(socket)["error"] == {
                "status": 413,
                "detail": "a frame must have at most 5,000 bytes, got 5,001",
            }
            for _ in range(2):
                socket.send(picture(1))
                answer = told(socket)
                assert answer["predictions"]
            socket.send(picture(1))  # the fifth request: two connections, two frames, and this
            answer = told(socket)
            assert answer["error"]["status"] == 429
            socket.send("a word")
            with pytest.raises(ConnectionClosed, match="a frame must be a binary message"):
                socket.recv(timeout=5)
        answer = httpx.get(f"{url}/v1/stream")
        assert answer.status_code == 429
    inference.close()


def test_by_http_it_says_what_it_is(steady: str):
    for answer in (httpx.get(f"{steady}/v1/stream"), httpx.post(f"{steady}/v1/stream", content=b"image")):
        assert answer.status_code == 426
        assert (
            answer.json()["detail"]
            == "/v1/stream is a WebSocket: each message in is an image, each message out is JSON"
        )


def test_the_end_of_the_endpoint_is_told_to_cameras(classifier: Classifier, cifar: Path, picture: Picture):
    app, inference = application(classifier, cifar, deadline=20_000)
    with listening(app) as url, camera(url) as socket:
        socket.send(picture(1))
        assert told(socket)["predictions"]
        threading.Thread(target=app.state.cameras.close).start()  # as the replica's own thread does
        with pytest.raises(ConnectionClosed, match=r"1001.*another may take its place"):
            socket.recv(timeout=5)
        assert refusal(url)[0] == 503
    inference.close()


def test_a_stream_has_its_line_in_the_log(
    classifier: Classifier, cifar: Path, picture: Picture, capfd: pytest.CaptureFixture[str]
):
    app, inference = application(classifier, cifar, access_log=True)
    with listening(app) as url:
        with camera(url, additional_headers={"X-Request-ID": "camera-7"}) as socket:
            socket.send(picture(1))
            told(socket)
        time.sleep(0.5)
    (line,) = [line for line in capfd.readouterr().err.splitlines() if "camera-7" in line]
    wanted = {"method": "GET", "path": "/v1/stream", "status": 101, "frames": 1, "answered": 1, "dropped": 0}
    assert {name: json.loads(line)[name] for name in wanted} == wanted
    inference.close()
