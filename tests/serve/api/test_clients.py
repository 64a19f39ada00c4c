"""Keys and rates: who may ask, and how often."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.api.clients import Keys, RateLimit

ANN, BOB, EVE = "a" * 20, "b" * 20, "e" * 20


def test_keys_name_their_clients_and_follow_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Keys, "EVERY", 0.0)
    file, warnings = tmp_path / "keys", []
    file.write_text(f"# clients\nann {ANN}\nbob {BOB}  # phone\n")
    keys = Keys(str(file), warnings.append)
    assert [keys.client(key) for key in (ANN, BOB, EVE, "")] == ["ann", "bob", None, None]
    file.write_text(f"eve {EVE}\n")
    assert [keys.client(key) for key in (ANN, EVE)] == [None, "eve"]
    file.write_text("damaged\n")
    assert keys.client(EVE) == "eve"
    os.remove(file)
    assert keys.client(EVE) == "eve"
    assert len(warnings) >= 2
    assert not any(EVE in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one line"),
        ("ann\n", "line 1 must be"),
        ("# x\nann short\n", "line 2: a key must have at least 16"),
    ],
)
def test_a_wrong_file_is_named_by_its_line(tmp_path: Path, text: str, message: str):
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        Keys(str(file), print)


def test_an_absent_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match="api_key_file must be readable"):
        Keys(str(tmp_path / "none"), print)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 3)), max_size=60),
    st.floats(0.5, 10),
    st.integers(1, 8),
    st.integers(1, 4),
)
def test_a_client_never_gets_more_than_the_burst_and_the_rate_of_all_replicas(
    asked: list[tuple[float, int]], rate: float, burst: int, replicas: int
):
    now = 0.0
    limits = [RateLimit(rate, burst, lambda: replicas, clock=lambda: now) for _ in range(replicas)]
    granted: list[float] = []
    for gap, chosen in asked:
        now += gap
        wait = limits[chosen % replicas].wait("ann")
        if wait == 0:
            granted.append(now)
        else:
            assert 0 < wait <= replicas / rate + 1e-9
    for start in range(len(granted)):
        for end in range(start, len(granted)):
            most = max(burst, replicas) + rate * (granted[end] - granted[start])
            assert end - start + 1 <= most + 1e-6


def test_replicas_that_come_and_go_change_the_share():
    now, replicas = 0.0, 1
    limit = RateLimit(4.0, 4, lambda: replicas, clock=lambda: now)
    assert [limit.wait("ann") == 0 for _ in range(5)] == [True] * 4 + [False]
    replicas, now = 2, 10.0
    assert [limit.wait("ann") for _ in range(3)] == [0, 0, 0.5]
    replicas, now = 1, 10.25
    assert limit.wait("ann") == 0


def test_waiting_as_long_as_said_is_enough_and_clients_are_apart():
    now = 0.0
    limit = RateLimit(2.0, 1, clock=lambda: now)
    assert limit.wait("ann") == 0
    assert limit.wait("bob") == 0
    wait = limit.wait("ann")
    now += wait
    assert limit.wait("ann") == 0


def test_buckets_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(RateLimit, "CLIENTS", 100)
    limit = RateLimit(1.0, 1)
    for number in range(1000):
        limit.wait(str(number))
    assert len(limit._buckets) == 100
