"""A key-value store of the cluster as a named actor, where Ray's own store cannot be had."""

from __future__ import annotations

from typing import Any


class Store:
    """A process that holds a dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def put(self, key: str, value: bytes, overwrite: bool) -> None:
        """Keep a value. overwrite: also where there is one."""
        if overwrite or key not in self.values:
            self.values[key] = value

    def get(self, key: str) -> bytes | None:
        """The value of a key, or None."""
        return self.values.get(key)

    def remove(self, key: str) -> None:
        """Forget a key."""
        self.values.pop(key, None)

    def list(self, prefix: str) -> list[bytes]:
        """All keys with a prefix."""
        return [key.encode() for key in self.values if key.startswith(prefix)]


def store_actor() -> Any:
    """The cluster's, started by whoever asks first."""
    import ray

    options: Any = {"name": "resnet-postings", "namespace": "resnet", "get_if_exists": True, "lifetime": "detached"}
    return ray.remote(Store).options(num_cpus=0, **options).remote()
