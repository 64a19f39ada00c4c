"""HEAD, slashes at the end, pages of other origins, packed answers, ids of requests."""

import gzip
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from serve.api.middleware import AccessLog

Clients = Callable[..., Any]
Picture = Callable[..., bytes]


def test_head_is_get_without_the_content_and_a_slash_at_the_end_is_none(clients: Clients, live: str):
    client = clients()
    api = client.get("/openapi.json").json()
    paths = [
        path.replace("{name}", "resnet").replace("{version}", "7")
        for path in api["paths"]
        if "get" in api["paths"][path]
    ]
    for path in ("/", "/docs", "/openapi.json", *paths):
        got, head = client.get(path), client.request("HEAD", path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
        if path != "/metrics":  # which counts itself
            assert head.headers["content-length"] == got.headers["content-length"]
        slashed = client.get(f"{path}/")
        assert slashed.status_code == 200, path
    with httpx.Client(base_url=live) as real:  # by a real server: the connection goes on
        for path in ("/healthz", "/v1/model", "/nowhere"):
            assert real.head(path).content == b""
            assert real.get("/healthz").json() == {"status": "ok"}
    assert client.request("HEAD", "/nowhere").status_code == 404
    assert client.request("HEAD", "/v1/predict").status_code == 405


@pytest.mark.parametrize("path", ["/v1/predict/", "/v1/embed//", "/v1/predict/?top_k=1"])
def test_a_body_is_not_sent_twice_for_a_slash(clients: Clients, picture: Picture, path: str):
    answer = clients().post(path, content=picture(0))
    assert answer.status_code == 200
    assert answer.history == []


def test_keys_guard_the_path_without_its_slash_too(clients: Clients, tmp_path: Any):
    (tmp_path / "keys").write_text(f"ann {'a' * 20}\n")
    client = clients(api_key_file=str(tmp_path / "keys"))
    for method, path, status in (
        ("GET", "/v1/model/", 401),
        ("HEAD", "/v1/model", 401),
        ("HEAD", "/metrics/", 401),
        ("POST", "/v1/predict/", 401),
        ("GET", "/healthz/", 200),
        ("HEAD", "/docs/", 200),
        ("GET", "//", 200),
    ):
        assert client.request(method, path).status_code == status, path


ORIGIN = "https://shop.example"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}


def test_pages_of_other_origins_are_answered_where_they_are_allowed(clients: Clients, picture: Picture, tmp_path: Any):
    (tmp_path / "keys").write_text(f"ann {'a' * 20}\n")
    client = clients(cors_origins=(ORIGIN,), api_key_file=str(tmp_path / "keys"))
    before = client.request("OPTIONS", "/v1/predict", headers=PREFLIGHT)
    assert before.status_code == 200  # a browser sends no key here
    assert before.headers["access-control-allow-origin"] == ORIGIN
    assert "x-api-key" in before.headers["access-control-allow-headers"].lower()
    for key, status in (("a" * 20, 200), ("wrong", 401)):  # a script reads errors too
        answer = client.post("/v1/predict", content=picture(0), headers={"Origin": ORIGIN, "X-API-Key": key})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    other = client.request("OPTIONS", "/v1/predict", headers=PREFLIGHT | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    closed = clients()
    assert "access-control-allow-origin" not in closed.get("/healthz", headers={"Origin": ORIGIN}).headers
    assert closed.request("OPTIONS", "/v1/predict", headers=PREFLIGHT).status_code == 405
    with pytest.raises(ValueError, match=r"cors_origins must be \* or scheme://host\[:port\] without a path, got shop"):
        clients(cors_origins=("shop.example",))


def test_long_answers_are_packed_for_those_who_take_gzip(clients: Clients, picture: Picture):
    client = clients()
    files = [("image", (f"{seed}.jpg", picture(seed))) for seed in range(16)]
    plain = client.post("/v1/embed", files=files, headers={"Accept-Encoding": "identity"})
    packed = client.post("/v1/embed", files=files, headers={"Accept-Encoding": "gzip, br"})
    assert "content-encoding" not in plain.headers
    assert (packed.headers["content-encoding"], packed.headers["vary"]) == ("gzip", "Accept-Encoding")
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert packed.json() == plain.json()
    short = client.post("/v1/predict", content=picture(0), headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in short.headers


def test_several_members_and_a_form_may_be_packed(clients: Clients, picture: Picture):
    client, data = clients(), picture(0)
    whole = client.post("/v1/predict", content=data).json()
    members = gzip.compress(data[:500]) + gzip.compress(data[500:])
    form = httpx.Request("POST", "http://x/", files={"image": ("a.jpg", data)})
    for content, kind in ((members, "image/jpeg"), (gzip.compress(form.read()), form.headers["content-type"])):
        headers = {"Content-Encoding": "gzip", "Content-Type": kind}
        assert client.post("/v1/predict", content=content, headers=headers).json() == whole


def test_an_unfit_id_is_replaced_in_body_log_and_header_alike(clients: Clients, caplog: pytest.LogCaptureFixture):
    log = logging.getLogger("serve.access")
    log.addHandler(caplog.handler)
    try:
        client = clients(access_log=True)
        for given in ('"quoted"', "two words", "x" * 129, "naïve".encode(), ""):
            answer = client.request("HEAD", "/v1/predict/", headers={"X-Request-ID": given})
            answer = client.get("/v1/predict/", headers={"X-Request-ID": given})
            assert len(answer.headers["x-request-id"]) == 32
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
        time.sleep(3 * AccessLog.WAIT)
    finally:
        log.removeHandler(caplog.handler)
    lines = [
        json.loads(line)
        for record in caplog.records
        if record.name == "serve.access"
        for line in record.getMessage().splitlines()
    ]
    assert lines[-1]["request_id"] == answer.headers["x-request-id"]
    assert [(line["method"], line["path"], line["status"]) for line in lines[:2]] == [
        ("HEAD", "/v1/predict/", 405),
        ("GET", "/v1/predict/", 405),
    ]
