"""The OpenAPI document: valid for two validators, a client is made of it, and every route answers what it says."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from serve.inference.classifier import Classifier

Clients = Callable[..., Any]
Picture = Callable[..., bytes]
BODIES = {"/v1/predict", "/v1/embed", "/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"}


def test_no_route_answers_what_its_document_allows_by_a_server_error(live: str):
    schema = schemathesis.openapi.from_url(f"{live}/openapi.json")
    schema.validate()  # by jsonschema-rs and its own copy of the standard
    asked = []
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # pyright: ignore[reportAttributeAccessIssue]  raises where the document is wrong

        @given(operation.as_strategy())
        @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        def ask(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, answer.text
            assert str(answer.status_code) in case.operation.definition.raw["responses"]
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == ["application/problem+json"]

        ask()
        asked.append(operation.path)
    assert set(asked) == set(httpx.get(f"{live}/openapi.json").json()["paths"])


def test_the_document_is_valid_and_its_references_resolve(live: str):
    validator = pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed")
    api = httpx.get(f"{live}/openapi.json").json()
    validator.validate(api)
    assert "HTTPValidationError" not in json.dumps(api)
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            errors = {code for code in operation["responses"] if code >= "400"}
            body = {"400", "408", "413", "415", "503", "504"}
            assert errors & body == (body if path in BODIES else set()), path
            assert ("404" in errors) == ("{name}" in path), path
            assert ("422" in errors) == path.startswith("/v1"), path
            assert {"401", "429"} <= errors or path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
            assert ("requestBody" in operation) == (method == "post")


def test_keys_are_a_choice_where_none_are_asked_for(clients: Clients, tmp_path: Path):
    (tmp_path / "keys").write_text(f"ann {'a' * 20}\n")
    for settings_, choice in (({}, [{}]), ({"api_key_file": str(tmp_path / "keys")}, [])):
        api = clients(**settings_).get("/openapi.json").json()
        assert set(api["components"]["securitySchemes"]) == {"bearer", "key"}
        assert api["paths"]["/v1/predict"]["post"]["security"] == [*choice, {"bearer": []}, {"key": []}]
        assert api["paths"]["/healthz"]["get"]["security"] == []


@pytest.fixture(scope="module")
def generated(live: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The package that openapi-python-client makes of the document."""
    pytest.importorskip("openapi_python_client", reason="openapi-python-client is not installed")
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_bytes(httpx.get(f"{live}/openapi.json").content)
    (folder / "config.yaml").write_text("post_hooks: []\npackage_name_override: made_client\n")
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", "openapi.json", "--meta", "none"]
    done = subprocess.run(
        [*command, "--config", "config.yaml"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "WARNING" not in done.stdout.upper(), done.stdout  # a route that it leaves out
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield importlib.import_module("made_client")
    for name in [name for name in sys.modules if name.split(".")[0] == "made_client"]:
        del sys.modules[name]


def test_a_generated_client_asks_every_kind_of_route(
    generated: Any, live: str, classifier: Classifier, picture: Picture
):
    part = lambda name: importlib.import_module(f"made_client.{name}")  # noqa: E731
    client = generated.Client(base_url=live)
    card = part("api.images.card_v1_model_get").sync(client=client)
    assert (card.name, len(card.classes)) == ("resnet", 10)
    predict = part("api.images.predict_v1_predict_post")
    types = part("types")
    found = predict.sync(client=client, body=types.File(payload=picture(1)), top_k=2)
    best = classifier.predict([picture(1)], 2)[0]
    assert [p.name for p in found.images[0].predictions] == [p.image_class.name for p in best]
    wrong = predict.sync_detailed(client=client, body=types.File(payload=b"none"))
    assert (wrong.status_code, wrong.parsed.status) == (400, 400)
    assert wrong.parsed.detail.startswith("an image must be JPEG")
    told = part("api.open_inference_protocol.metadata_of_model").sync("resnet", client=client)
    assert [tensor.name for tensor in told.inputs] == ["image", "pixels"]
    header = part("models").RequestHeader.from_dict(
        {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [9.0] * 3072}]}
    )
    answer = part("api.open_inference_protocol.infer_of_model").sync("resnet", client=client, body=header)
    assert answer.model_version == "7"
    assert len(answer.outputs[0].data) == 10
