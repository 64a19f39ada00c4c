"""The pieces of the OpenAPI document, and the timing header. The whole document: test_openapi.py."""

import numpy as np
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from serve.api.http_schema import GATED, IMAGE_BODY, UNKNOWN, document, server_timing
from serve.inference import upload_checks
from serve.inference.classifier import Answer
from serve.inference.inference_service import Refused, Served
from serve.problems import Problem


class More(BaseModel):
    """A model that no route returns."""

    inner: int


def described(keys: bool) -> dict[str, dict]:
    app = FastAPI(title="t", version="1")

    @app.get("/open")
    def open_to_all(count: int) -> int:
        return count

    @app.get("/gated", responses=GATED | UNKNOWN)
    def gated(count: int) -> int:
        return count

    return document(app, [More], keys)


@pytest.mark.parametrize("keys", [True, False])
def test_only_gated_routes_ask_for_a_key_and_errors_are_problem_details(keys: bool):
    api = described(keys)
    free, gated = (api["paths"][path]["get"] for path in ("/open", "/gated"))
    assert free["security"] == []
    needed = [{"bearer": []}, {"key": []}]
    assert gated["security"] == (needed if keys else [{}, *needed])
    assert set(free["responses"]) == {"200"}  # FastAPI's own 422 is not what the endpoint answers
    assert set(gated["responses"]) == {"200", "401", "422", "429"}
    for status in ("401", "422", "429"):
        assert list(gated["responses"][status]["content"]) == ["application/problem+json"]
    assert {"More", "Problem"} == set(api["components"]["schemas"])


def test_every_kind_that_is_accepted_is_a_body():
    kinds = IMAGE_BODY["requestBody"]["content"]
    assert set(kinds) == {
        *upload_checks.ACCEPTED,
        "application/octet-stream",
        "multipart/form-data",
        "application/json",
    }


def test_the_timing_header_has_the_slowest_image_of_each_phase():
    answer = Answer(np.zeros(2, np.float32), np.zeros(3, np.float32))
    outcomes = [Served(answer, 0.001, 0.02, 0.003), Refused(Problem(400, "no")), Served(answer, 0.004, 0.01, 0.0025)]
    assert server_timing(outcomes) == {"Server-Timing": "decode;dur=4.00, queue;dur=20.00, model;dur=3.00"}
