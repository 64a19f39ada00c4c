"""A client of /v1/stream."""

import json
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect


def camera(url: str, query: str = "", **options: Any) -> ClientConnection:
    return connect(f"ws{url.removeprefix('http')}/v1/stream{query}", proxy=None, **options)


def told(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(socket.recv(timeout=20))


def refusal(url: str, query: str = "", **options: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as refused:
        camera(url, query, **options)
    return refused.value.response.status_code, json.loads(refused.value.response.body or b"{}")
