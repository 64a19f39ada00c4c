"""Keys that HAProxy asks for, renewed while it runs."""

import time
from pathlib import Path

from serve.haproxy.front_keys import key_digests
from tests.serve.haproxy.conftest import Fronts, wait


def test_a_new_key_holds_without_a_reload(fronts: Fronts, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text("bob 0123456789abcdef # of the team\n")
    front = fronts(keys=str(keys))
    front.launch()

    def code(key: str) -> int:
        return front.ask(headers={"Authorization": f"Bearer {key}"}).status_code

    assert (code("0123456789abcdef"), code("fedcba9876543210")) == (200, 401)
    keys.write_text("eve fedcba9876543210\n")
    wait(lambda: code("fedcba9876543210") == 200)
    wait(lambda: code("0123456789abcdef") == 401)
    keys.write_text("damaged\n")
    time.sleep(2.5)
    assert code("fedcba9876543210") == 200


def test_digests_are_haproxy_s_own():
    assert key_digests(["# none", "bob 0123456789abcdef  # x", "one"]) == [
        "9F9F5111F7B27A781F1F1DDDE5EBC2DD2B796BFC7365C9C28B548E564176929F"
    ]
