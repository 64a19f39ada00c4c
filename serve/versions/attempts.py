"""Loading a version with care: what ended one process shall not end the next.

Before a version is loaded for the first time on a cluster, one replica tries it in a process of its own
(trial_process.py); the others wait. Each attempt of a replica is written down before it begins and crossed out when it
has ended, in notes that outlive the replica. So one that takes the place of a replica that died in it begins with the
last good version, tries the wanted one again beside it, and refuses it when it has ended a second one: the first may
have been somebody's kill.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from typing import Protocol

from serve.settings import Args
from serve.versions import memory_need, trial_process
from serve.versions.loaded_model import Loaded, load_version
from serve.versions.traffic import Version

DEATHS = 2  # replicas that ended while they loaded a version; then it is refused


class SharedNotes(Protocol):
    """Notes that all replicas of a cluster write and read."""

    def put(self, key: str, value: str, overwrite: bool = True) -> bool:
        """Keep a value; whether there was none before. overwrite=False leaves one that is there."""
        ...

    def get(self, key: str) -> str | None:
        """A value, or None."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin so."""
        ...

    def delete(self, key: str) -> None:
        """Forget a key."""
        ...


class OwnNotes:
    """Notes of one process: of an endpoint without a cluster, and where Ray's key-value store is missing."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def put(self, key: str, value: str, overwrite: bool = True) -> bool:
        """Keep a value; whether there was none before."""
        new = key not in self.values
        if new or overwrite:
            self.values[key] = value
        return new

    def get(self, key: str) -> str | None:
        """A value, or None."""
        return self.values.get(key)

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin so."""
        return [key for key in self.values if key.startswith(prefix)]

    def delete(self, key: str) -> None:
        """Forget a key."""
        self.values.pop(key, None)


class VersionRefused(Exception):
    """A version is not served. Its text says why."""


class NotYet(Exception):
    """Another replica tries the version at this moment, or it is not for a replica that starts."""


class Attempts:
    """Loads versions for one replica. alive: whether another replica, by its name, is there; trial: how a version is
    tried before this process touches it, None: not at all."""

    def __init__(
        self,
        args: Args,
        replica: str,
        notes: SharedNotes,
        alive: Callable[[str], bool],
        trial: Callable[[Version, Args], str | None] | None = trial_process.tried,
    ) -> None:
        self.args, self.replica, self.notes, self.alive, self.trial = args, replica, notes, alive, trial
        self._settings = _digest(args.model_dump_json(exclude={"version", "checkpoint"}))

    def load(self, wanted: Version, starting: bool = False) -> Loaded:
        """The version, checked and warm. VersionRefused says why not; NotYet: ask again in a moment.

        starting: nothing answers here yet, so what has ended a replica before is left for later.
        """
        key = self._key(wanted)
        if (known := self.notes.get(f"refused/{key}")) is not None:
            raise VersionRefused(known)
        dead, good = self._dead(key), self._is_good(key)
        if dead and starting and (not good or len(dead) >= DEATHS):
            raise NotYet
        if not good:
            if len(dead) >= DEATHS:
                raise self._refused(key, f"{len(dead)} replicas ended while they loaded it")
            self._try_first(key, wanted)
        return self._loaded(key, wanted)

    def load_without_choice(self, own: Version) -> Loaded:
        """The version that the application was deployed with, where there is no other. VersionRefused says why not."""
        return self._loaded(self._key(own), own)

    def forget(self, wanted: Version) -> None:
        """Let a version that was refused be tried again."""
        key = self._key(wanted)
        for each in (f"refused/{key}", f"first/{key}", *self.notes.keys(f"attempt/{key}/")):
            self.notes.delete(each)

    def serves(self, version: Version) -> None:
        """Write down that a version answers: it is what a replica begins with where the wanted one is bad."""
        self.notes.put(f"last/{self._settings}", version.model_dump_json())

    def last_good(self) -> Version | None:
        """The version that answered last on any replica."""
        noted = self.notes.get(f"last/{self._settings}")
        return None if noted is None else Version.model_validate_json(noted)

    def _key(self, wanted: Version) -> str:
        """Of a version with these settings: other settings may make it fit."""
        return f"{self._settings}/{_digest(f'{wanted.version} {wanted.checkpoint}')}"

    def _dead(self, key: str) -> list[str]:
        """Replicas that ended while they loaded it."""
        names = (each.rpartition("/")[2] for each in self.notes.keys(f"attempt/{key}/"))
        return [name for name in names if name != self.replica and not self.alive(name)]

    def _try_first(self, key: str, wanted: Version) -> None:
        """Be the one that tries it, in a process of its own. NotYet: another one does; VersionRefused."""
        if not self.notes.put(f"first/{key}", self.replica, overwrite=False):
            other = self.notes.get(f"first/{key}")
            if other not in (None, self.replica) and self.alive(other):
                raise NotYet
            self.notes.put(f"first/{key}", self.replica)
        with self._noted(key):
            others = memory_need.replicas_here() - 1
            why = memory_need.too_large(wanted.checkpoint, self.args, memory_need.PROCESS, others)
            if why is None and self.trial is not None:
                why = self.trial(wanted, self.args)
        if why is not None:
            raise self._refused(key, why)

    def _loaded(self, key: str, wanted: Version) -> Loaded:
        """In this process. A version that is known to be good fits, whatever an estimate says."""
        if not self._is_good(key) and (why := memory_need.too_large(wanted.checkpoint, self.args)) is not None:
            raise self._refused(key, why)
        with self._noted(key):
            try:
                loaded = load_version(wanted, self.args, self.args.name, self.replica)
            except Exception as error:  # whatever readers of URIs raise
                raise self._refused(key, str(error)[:300] or type(error).__name__) from error
        self.notes.put(f"good/{key}", wanted.version)
        for name in self._dead(key):
            self.notes.delete(f"attempt/{key}/{name}")
        return loaded

    def _is_good(self, key: str) -> bool:
        return self.notes.get(f"good/{key}") is not None

    def _refused(self, key: str, why: str) -> VersionRefused:
        """Written down, for the others; not of a version that is good elsewhere: a network may have failed."""
        if not self._is_good(key):
            self.notes.put(f"refused/{key}", why)
        return VersionRefused(why)

    @contextlib.contextmanager
    def _noted(self, key: str) -> Iterator[None]:
        """Write down that an attempt begins; cross it out at its end, good or bad. Only a death leaves it there."""
        note = f"attempt/{key}/{self.replica}"
        self.notes.put(note, "")
        try:
            yield
        finally:
            self.notes.delete(note)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
