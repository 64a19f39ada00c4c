"""schemathesis asks every route of the OpenAPI document what it says may be asked."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings


def test_no_route_answers_what_its_document_allows_by_a_server_error(live: str):
    schema = schemathesis.openapi.from_url(f"{live}/openapi.json")
    asked = []
    for found in schema.get_all_operations():
        operation: Any = found.ok()  # pyright: ignore[reportAttributeAccessIssue]  raises where the document is wrong

        @given(operation.as_strategy())
        @settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        def ask(case: Any) -> None:
            answer = case.call()
            assert answer.status_code < 500, answer.text
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == ["application/problem+json"]

        ask()
        asked.append(operation.path)
    assert {"/v1/predict", "/v1/embed", "/v2/models/{name}/infer"} <= set(asked)
