"""/docs: the commands that it shows are run as they stand, and it tells of bodies and answers without a script."""

import html
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

Clients = Callable[..., Any]
Picture = Callable[..., bytes]


def commands(page: str) -> list[str]:
    return [
        line
        for block in re.findall(r"</summary><pre>(.*?)</pre>", page, re.DOTALL)
        for line in html.unescape(block).split("\n")
    ]


def test_the_commands_work_as_they_stand(live: str, picture: Picture, tmp_path: Path):
    for name in ("photo.jpg", "one.jpg", "two.png"):
        (tmp_path / name).write_bytes(picture(len(name)))
    page = httpx.get(f"{live}/docs").text
    lines = commands(page)
    assert len(lines) > 20
    for line in lines:
        done = subprocess.run(["bash", "-c", f"{line} -sSf"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        if "/metrics" not in line:
            json.loads(done.stdout)
    embedded = [line for line in lines if "/v1/" in line and "base64" in line]
    assert embedded


def test_every_route_is_told_with_its_fields(live: str):
    page = httpx.get(f"{live}/docs").text
    assert "<script" not in page
    for path in httpx.get(f"{live}/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page
    predict = page[page.index("<code>/v1/predict</code>") :].partition("</details>")[0]
    for words in (
        "<td>top_k (query)</td><td>integer, 1 to 1000, default 5</td>",
        "multipart/form-data",
        "<td>images[].predictions[].probability</td><td>number</td>",
        "<td>images[].error.detail</td>",
        "<td>413</td>",
    ):
        assert words in predict


def test_commands_carry_a_key_where_one_is_asked_for_and_nothing_is_taken_from_the_host_as_html(
    clients: Clients, tmp_path: Path
):
    (tmp_path / "keys").write_text(f"ann {'a' * 20}\n")
    client = clients(api_key_file=str(tmp_path / "keys"))
    lines = commands(client.get("/docs").text)
    keyed = {re.search(r"endpoint/(\w+)", line)[1] for line in lines if "Authorization: Bearer KEY" in line}  # pyright: ignore[reportOptionalSubscript]
    assert keyed == {"v1", "v2", "metrics"}
    assert all("KEY" not in line for line in lines if line.endswith(("/healthz", "/readyz", "/health/live")))
    page = client.get("/docs", headers={"Host": 'x"><b>y'}).text
    assert "<b>y" not in page
