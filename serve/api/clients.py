"""Authentication and rate limits: API keys from a file, and a token bucket for each client."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path


def key_digest(key: str) -> bytes:
    """SHA-256 of a key: all have one length, so that comparing them takes one time."""
    return hashlib.sha256(key.encode()).digest()


def parse_keys(text: str) -> dict[bytes, str]:
    """Digest -> client's name, from lines `NAME KEY`; # starts a comment. ValueError names a wrong line."""
    keys = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#")[0].split()
        if words and len(words) != 2:
            raise ValueError(f"api_key_file line {number} must be `NAME KEY`, got {len(words)} words")
        if words:
            if len(words[1]) < 16:
                raise ValueError(f"api_key_file line {number}: a key must have at least 16 characters")
            digest = key_digest(words[1])
            if keys.setdefault(digest, words[0]) != words[0]:
                raise ValueError(
                    f"api_key_file line {number}: a key must have one name, got {keys[digest]} and {words[0]}"
                )
    if not keys:
        raise ValueError("api_key_file must hold at least one line `NAME KEY`, got none")
    return keys


class Keys:
    """The keys of a file. A changed file is read again; while it is damaged or gone the last good keys hold."""

    EVERY = 1.0  # seconds between two looks at the file

    def __init__(self, path: str, warn: Callable[[str], None]) -> None:
        self._path = Path(path)
        self._warn = warn
        try:
            self._seen = self._stamp()
            self._keys = parse_keys(self._path.read_text())
        except OSError as error:
            raise ValueError(f"api_key_file must be readable, got {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"api_key_file must be text with lines `NAME KEY`, got other bytes in {path}") from None
        self._looked = time.monotonic()

    def _stamp(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def client(self, key: str) -> str | None:
        """The name of the client that a key belongs to, or None. Every key is compared, each in constant time."""
        self._reload()
        given, found = key_digest(key), None
        for known, name in self._keys.items():
            if hmac.compare_digest(known, given):
                found = name
        return found

    def _reload(self) -> None:
        if time.monotonic() - self._looked < self.EVERY:
            return
        self._looked = time.monotonic()
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._keys = parse_keys(self._path.read_text())
        except (OSError, ValueError) as error:
            self._warn(f"api_key_file was not read again, the last keys hold: {error}")


class RateLimit:
    """A token bucket for each client. rate: requests a second; burst: requests at once; both over all replicas.

    replicas: how many share them. Each grants its part and asks nobody: together never more than rate, nor at once more
    than burst (or one each), and less to a client whose requests do not reach all replicas alike.
    """

    CLIENTS = 10_000  # buckets kept; the one longest unused goes first

    def __init__(
        self,
        rate: float,
        burst: int,
        replicas: Callable[[], int] = lambda: 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rate, self._burst, self._replicas, self._clock = rate, burst, replicas, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """Take one token: 0, or the seconds until there is one."""
        now, share = self._clock(), 1 / max(1, self._replicas())
        rate, burst = self._rate * share, max(1.0, self._burst * share)
        tokens, since = self._buckets.pop(client, (burst, now))
        tokens = min(burst, tokens + (now - since) * rate)
        granted = tokens >= 1
        self._buckets[client] = (tokens - granted, now)
        if len(self._buckets) > self.CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if granted else (1 - tokens) / rate
