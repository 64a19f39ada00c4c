"""Routes of /v2 beside those that Triton's client calls (test_open_inference_protocol.py)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serve.api.inference_v2 import all_served
from serve.inference.classifier import Answer
from serve.inference.inference_service import Refused, Served
from serve.problems import Problem

Clients = Callable[..., Any]
SERVED = Served(Answer(np.zeros(2, np.float32), np.zeros(3, np.float32)), 0.0, 0.0, 0.0)


def test_a_tensor_has_no_place_for_an_error():
    assert all_served([SERVED, SERVED]) == [SERVED, SERVED]
    with pytest.raises(Problem, match=r"^image 2 of 3: too large$") as refused:
        all_served([SERVED, Refused(Problem(413, "too large")), Refused(Problem(400, "no image"))])
    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v2/repository/models/resnet/load", "resnet cannot be loaded or unloaded by a request"),
        ("/v2/repository/models/resnet/unload", "resnet cannot be loaded or unloaded by a request"),
        (f"/v2/repository/models/{'x' * 300}/load", f"{'x' * 80} cannot be loaded"),
        ("/v2/repository/models/resnet/index", "index: the endpoint serves what the registry"),
    ],
)
def test_no_request_loads_a_model(clients: Clients, path: str, words: str):
    answer = clients().post(path)
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(words)


def test_health_says_the_server_and_the_model(clients: Clients):
    client = clients()
    assert client.get("/v2").json()["name"] == "deep-residual-ray"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True, "name": None}
    assert client.get("/v2/models/resnet/ready").json() == {"ready": True, "name": "resnet"}
    assert client.get("/v2/models/resnet/versions/7/ready").status_code == 200
    for path in ("/v2/models/third/ready", "/v2/models/resnet/versions/8/ready"):
        assert client.get(path).status_code == 404


def test_the_index_has_what_is_loaded_whatever_its_body_asks(clients: Clients):
    client = clients()
    for body in (b"", b"{}", b'{"ready": true}'):
        (entry,) = client.post("/v2/repository/index", content=body).json()
        assert (entry["name"], entry["version"], entry["state"]) == ("resnet", "7", "READY")
