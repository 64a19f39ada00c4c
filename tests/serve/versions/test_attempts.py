"""Versions that are loaded with care: tried first by one, never twice by those who die of it, with a way back."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.settings import Args
from serve.versions.attempts import Attempts, NotYet, OwnNotes, VersionRefused
from serve.versions.served_models import Models
from serve.versions.traffic import Traffic, Version

Replica = Callable[..., Attempts]


@pytest.fixture
def args(cifar: Path) -> Args:
    return Args(checkpoint=str(cifar), version="1", precision="float32", batch=1)


@pytest.fixture
def alive() -> set[str]:
    """Names of the replicas that are there."""
    return {"a", "b"}


@pytest.fixture
def replica(args: Args, alive: set[str]) -> Replica:
    """replica("a"): how that replica loads versions; all of them share their notes. Without processes of their own."""
    notes = OwnNotes()
    return lambda name: Attempts(args, name, notes, alive.__contains__, None)


def version(place: Path, name: str = "2") -> Version:
    return Version(version=name, checkpoint=str(place))


def note_of(replica: Attempts, wanted: Version) -> str:
    """The note of an attempt that has begun."""
    seen: list[str] = []
    put = replica.notes.put

    def watched(key: str, value: str, overwrite: bool = True) -> bool:
        seen.append(key)
        return put(key, value, overwrite)

    replica.notes.put = watched  # pyright: ignore[reportAttributeAccessIssue]
    replica.load(wanted).inference.close()
    replica.notes.put = put  # pyright: ignore[reportAttributeAccessIssue]
    return next(key for key in seen if key.startswith("attempt/"))


def begun(replica: Attempts, wanted: Version, name: str) -> None:
    """What a replica that died while it loaded a version has left."""
    replica.notes.put(f"attempt/{replica._key(wanted)}/{name}", "")


def test_a_good_version_is_noted_and_nothing_is_left_of_the_attempt(replica: Replica, cifar: Path):
    one = replica("a")
    wanted = version(cifar)
    assert note_of(one, wanted).startswith("attempt/")
    assert one.notes.keys("attempt/") == []
    assert len(one.notes.keys("good/")) == 1


def test_while_one_tries_it_the_others_wait(replica: Replica, alive: set[str], cifar: Path):
    one, other, wanted = replica("a"), replica("b"), version(cifar)
    one.notes.put(f"first/{one._key(wanted)}", "a")
    with pytest.raises(NotYet):
        other.load(wanted)
    alive.remove("a")  # it dies of something else: there is no attempt of it
    other.load(wanted).inference.close()


def test_a_damaged_version_is_tried_once_and_refused_by_all(replica: Replica, args: Args, cifar: Path, tmp_path: Path):
    shutil.copytree(cifar, tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"damaged")
    wanted = version(tmp_path / "bad")
    trying = Attempts(args, "a", replica("a").notes, lambda _: True)  # in a process of its own
    for each in (trying, replica("b")):
        with pytest.raises(VersionRefused, match="is damaged"):
            each.load(wanted)
    shutil.copy(cifar / "model.safetensors", tmp_path / "bad" / "model.safetensors")
    with pytest.raises(VersionRefused, match="is damaged"):
        replica("a").load(wanted)  # not again by itself
    replica("a").forget(wanted)  # somebody asks for it anew
    replica("a").load(wanted).inference.close()


def test_one_that_ended_two_replicas_is_refused(replica: Replica, alive: set[str], cifar: Path):
    wanted = version(cifar)
    alive.clear()
    begun(replica("a"), wanted, "a")
    begun(replica("b"), wanted, "b")
    with pytest.raises(VersionRefused, match="2 replicas ended while they loaded it"):
        replica("c").load(wanted)


def test_after_one_death_the_next_replica_begins_with_the_last_good_version_and_tries_the_other_beside(
    replica: Replica, args: Args, alive: set[str], cifar: Path, imagenet: Path
):
    good, wanted = version(cifar, "2"), version(imagenet, "3")
    first = replica("a")
    first.load(good).inference.close()
    first.serves(good)
    begun(first, wanted, "a")
    alive.remove("a")
    models = Models.open(args, wanted, replica("b"))
    assert models.answers == good
    with pytest.raises(NotYet):
        models.apply(Traffic(stable=wanted), starting=True)
    models.apply(Traffic(stable=wanted))
    assert (models.answers, models.refused) == (wanted, None)
    assert replica("b").notes.keys("attempt/") == []
    models.close()


def test_a_death_of_a_version_that_is_good_elsewhere_is_an_accident(replica: Replica, alive: set[str], cifar: Path):
    wanted = version(cifar)
    replica("a").load(wanted).inference.close()
    begun(replica("b"), wanted, "b")
    alive.remove("b")
    replica("c").load(wanted, starting=True).inference.close()
    assert replica("c").notes.keys("attempt/") == []


def test_what_fails_where_it_is_good_elsewhere_is_not_refused_for_all(replica: Replica, cifar: Path, tmp_path: Path):
    shutil.copytree(cifar, tmp_path / "moving")
    wanted = version(tmp_path / "moving")
    replica("a").load(wanted).inference.close()
    (tmp_path / "moving").rename(tmp_path / "away")  # a disk that is gone for a while
    with pytest.raises(VersionRefused, match="must hold model"):
        replica("b").load(wanted)
    (tmp_path / "away").rename(tmp_path / "moving")
    replica("b").load(wanted).inference.close()


def test_other_settings_are_another_attempt(args: Args, cifar: Path):
    notes, wanted = OwnNotes(), version(cifar)
    one = Attempts(args, "a", notes, lambda _: False)
    other = Attempts(args.model_copy(update={"batch": 2}), "a", notes, lambda _: False)
    assert one._key(wanted) != other._key(wanted)
    moved = Attempts(args.model_copy(update={"version": "9"}), "a", notes, lambda _: False)
    assert one._key(wanted) == moved._key(wanted)
