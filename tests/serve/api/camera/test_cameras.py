"""/v1/stream over a real server: its answers are /v1/predict's, stale frames dropped, late ones refused, limits held."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from serve.api.middleware import KEY_PROTOCOL
from serve.inference.classifier import Answer, Classifier
from tests.serve.conftest import application, listening

Picture = Callable[..., bytes]
KEY = "k" * 20


class Slow(Classifier):
    """The network on a machine that takes `seconds` for an image."""

    seconds = 0.0

    def run_batch(self, images: Sequence[np.ndarray]) -> list[Answer]:
        time.sleep(self.seconds * len(images))
        return super().run_batch(images)


@pytest.fixture(scope="module")
def slow(cifar: Path) -> Iterator[Slow]:
    yield Slow(str(cifar), precision="float32")


@pytest.fixture(scope="module")
def steady(classifier: Classifier, cifar: Path) -> Iterator[str]:
    """URL of an endpoint that a machine with other work does not make late."""
    app, inference = application(classifier, cifar, deadline=20_000)
    with listening(app) as url:
        yield url
    inference.close()


def camera(url: str, query: str = "", **options: Any) -> ClientConnection:
    return connect(f"ws{url.removeprefix('http')}/v1/stream{query}", proxy=None, **options)


def told(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(socket.recv(timeout=20))


def refusal(url: str, query: str = "", **options: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as refused:
        camera(url, query, **options)
    return refused.value.response.status_code, json.loads(refused.value.response.body or b"{}")


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


def test_stale_frames_are_dropped_and_counted_and_the_newest_is_answered(slow: Slow, cifar: Path, picture: Picture):
    slow.seconds = 0.2
    app, inference = application(slow, cifar, deadline=5000)
    with listening(app) as url, camera(url) as socket:
        for number in range(10):
            socket.send(picture(number))
            time.sleep(0.005)
        first, last = told(socket), told(socket)
        assert (first["frame"], last["frame"]) == (1, 10)
        assert (last["frames"], last["dropped"], last["answered"]) == (10, 8, 2)
        assert last["predictions"][0]["id"] == slow.predict([picture(9)], 1)[0][0].image_class.id
        assert 150 < last["interval_ms"] < 400  # how often a frame may come
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        assert any(line.startswith("resnet_streams{") and line.endswith(" 1.0") for line in lines)
    lines = [line for line in inference_lines(inference) if line[0].startswith("resnet_stream_frames_total")]
    assert {(labels["outcome"], value) for _, labels, value in lines} == {
        ("answered", 2.0),
        ("dropped", 8.0),
        ("late", 0.0),
        ("refused", 0.0),
    }
    inference.close()


def inference_lines(inference: Any) -> list[tuple[str, dict[str, str], float]]:
    deadline = time.monotonic() + 5
    while inference.metrics.streams.collect()[0].samples[0].value and time.monotonic() < deadline:
        time.sleep(0.01)
    return [(s.name, s.labels, s.value) for family in inference.metrics.families() for s in family.samples]


def test_a_late_frame_is_refused_at_its_deadline_and_not_queued(slow: Slow, cifar: Path, picture: Picture):
    slow.seconds = 0.5
    app, inference = application(slow, cifar, deadline=100)
    with listening(app) as url, camera(url) as socket, camera(url) as other:
        began = time.perf_counter()
        socket.send(picture(1))
        time.sleep(0.02)
        other.send(picture(2))
        for each in (socket, other):
            answer = told(each)
            assert answer["error"] == {"status": 504, "detail": "no answer within 100 ms"}
            assert (answer["late"], answer["answered"]) == (1, 0)
            assert 95 < answer["ms"] < 200
        assert time.perf_counter() - began < 0.4  # before the first one is computed
        slow.seconds = 0.0
        time.sleep(0.6)
        for _ in range(3):  # a machine that is quick again answers again
            socket.send(picture(3))
            answer = told(socket)
        assert answer["predictions"]
    inference.close()


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
    app, inference = application(classifier, cifar, deadline=20_000, max_streams=1, max_bytes=5000, rate_limit=0.01, rate_burst=4)
    with listening(app) as url:
        with camera(url) as socket:
            assert refusal(url)[1]["detail"] == "1 cameras are connected already; try again"
            socket.send(b"\xff" * 5001)
            assert told(socket)["error"] == {"status": 413, "detail": "a frame must have at most 5,000 bytes, got 5,001"}
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
        assert answer.json()["detail"] == "/v1/stream is a WebSocket: each message in is an image, each message out is JSON"


def test_the_end_of_the_endpoint_is_told_to_cameras(classifier: Classifier, cifar: Path, picture: Picture):
    app, inference = application(classifier, cifar, deadline=20_000)
    with listening(app) as url, camera(url) as socket:
        socket.send(picture(1))
        assert told(socket)["predictions"]
        threading.Thread(target=app.state.cameras.close).start()  # as the replica's own thread does
        with pytest.raises(ConnectionClosed, match="1001.*another may take its place"):
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
