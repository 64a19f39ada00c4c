"""Keys of clients where HAProxy asks for them: as digests, in a file, renewed while it runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from serve.haproxy.haproxy_process import HaproxyProcess


class FrontKeys:
    """The digests of a file of keys, in another that HAProxy reads. While the file is damaged the last keys hold."""

    def __init__(self, source: str | None, listed: Path) -> None:
        self.source, self.listed = source, listed
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> bool:
        """Write the digests where HAProxy reads them; whether they have changed. RuntimeError: there were none yet."""
        if self.source is None:
            return False
        try:
            status = os.stat(self.source)
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return False
            found = key_digests(Path(self.source).read_text().splitlines())
        except (OSError, UnicodeDecodeError) as error:
            if self._seen is None:
                raise RuntimeError(f"the file of keys cannot be read: {error}") from None
            return False
        if not found and self._seen is not None:
            return False
        self._seen = seen
        self.listed.write_text("\n".join(found) + "\n")
        return True

    async def renew(self, workers: Sequence[HaproxyProcess]) -> None:
        """Tell running HAProxies of changed keys."""
        if self._seen is None or not self.read():
            return
        for worker in workers:
            with contextlib.suppress(OSError, TimeoutError):
                version = re.search(r"\d+", await worker.tell(f"prepare acl {self.listed}"))
                if version:
                    for digest in self.listed.read_text().split():
                        await worker.tell(f"add acl @{version[0]} {self.listed} {digest}")
                    await worker.tell(f"commit acl @{version[0]} {self.listed}")


def key_digests(lines: list[str]) -> list[str]:
    """SHA-256 of each key of a file with lines `NAME KEY`, as HAProxy writes it."""
    words = (line.split("#")[0].split() for line in lines)
    return [hashlib.sha256(pair[1].encode()).hexdigest().upper() for pair in words if len(pair) == 2]
