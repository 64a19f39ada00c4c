"""Every error is a problem detail of RFC 9457 with one sentence, the status that fits and its headers."""

import asyncio
import json
import re
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from serve.problems import MEDIA_TYPE, SCHEMA, Problem, install, response

Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def ask() -> Ask:
    """ask(path, method="GET") -> the answer of an application that fails in every way."""
    app = FastAPI()
    install(app)

    @app.get("/problem")
    def problem() -> None:
        raise Problem(503, "128 images wait already", retry_after=0.2)

    @app.get("/key")
    def key() -> None:
        raise Problem(401, "a key is needed")

    @app.get("/several")
    def several() -> None:
        raise Problem(400, "none of 2 images could be answered", errors=[Problem(400, "no image"), Problem(413, "big")])

    @app.get("/number")
    def number(top_k: int) -> int:
        return top_k

    @app.get("/bug")
    def bug() -> None:
        raise ZeroDivisionError("of ours")

    @app.get("/v2/problem")
    def open_inference() -> None:
        raise Problem(404, "there is no such model")

    def asked(path: str, method: str = "GET") -> httpx.Response:
        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://endpoint") as client:
                return await client.request(method, path)

        return asyncio.run(answered())

    return asked


@pytest.mark.parametrize(
    ("path", "status", "title", "detail"),
    [
        ("/problem", 503, "Service Unavailable", "128 images wait already"),
        ("/key", 401, "Unauthorized", "a key is needed"),
        ("/number?top_k=many", 422, None, "top_k must be a valid integer, .*, got 'many'"),
        ("/bug", 500, "Internal Server Error", "the endpoint failed; its log has the cause under the request id"),
        ("/nothing", 404, "Not Found", "there is no /nothing; /docs lists what there is"),
        ("/predict", 404, "Not Found", "there is no /predict; it is /v1/predict here"),
        ("/healthcheck", 404, "Not Found", "there is no /healthcheck; it is /healthz here, and /readyz"),
    ],
)
def test_an_error_is_one_object_with_a_sentence(
    ask: Ask, path: str, status: int, title: str | None, detail: str
) -> None:
    answer = ask(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == MEDIA_TYPE
    found = answer.json()
    assert set(SCHEMA["required"]) <= set(found)
    assert (found["status"], found["type"]) == (status, "about:blank")
    assert re.fullmatch(detail, found["detail"]), found["detail"]
    assert title is None or found["title"] == title
    assert "of ours" not in answer.text, "what failed inside is nobody's business"


def test_headers_say_when_to_come_again_and_what_is_asked_for(ask: Ask) -> None:
    assert ask("/problem").headers["retry-after"] == "1", "whole seconds, one at least"
    assert ask("/key").headers["www-authenticate"] == "Bearer"
    put = ask("/problem", "PUT")
    assert (put.status_code, put.headers["allow"]) == (405, "GET")
    assert put.json()["detail"] == ("/problem takes GET, not PUT; curl -T sends PUT: add -X POST, or use --data-binary")


def test_errors_of_several_images_are_numbered_from_one(ask: Ask) -> None:
    assert ask("/several").json()["errors"] == [
        {"image": 1, "status": 400, "detail": "no image"},
        {"image": 2, "status": 413, "detail": "big"},
    ]


def test_the_open_inference_protocol_has_its_own_member_too(ask: Ask) -> None:
    assert ask("/v2/problem").json()["error"] == "there is no such model"
    assert "error" not in ask("/problem").json()


@pytest.mark.parametrize(("seconds", "header"), [(0, "1"), (0.2, "1"), (1.2, "2"), (30, "30")])
def test_seconds_are_rounded_up(seconds: float, header: str) -> None:
    assert Problem(429, "slowly", retry_after=seconds).headers == {"Retry-After": header}
    answer = response({"path": "/v1/predict", "request_id": "r1"}, Problem(429, "slowly"))
    assert json.loads(bytes(answer.body))["request_id"] == "r1"
