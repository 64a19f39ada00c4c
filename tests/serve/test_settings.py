"""Settings of the endpoint are checked where they are read: one sentence that names the field."""

import os
from pathlib import Path
from typing import Any

import pytest

from resnet.images.checks.image_limits import LIMITS
from serve.settings import Args, Settings, from_root


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"batch": 0}, "batch must be greater than or equal to 1, got 0"),
        ({"timeout": float("inf")}, "timeout must be a finite number, got inf"),
        ({"max_pixels": LIMITS.pixels + 1}, f"max_pixels must be less than or equal to {LIMITS.pixels}"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas must be at least min_replicas 3, got 2"),
        ({"max_waiting": 8, "max_images": 32}, "max_waiting must be at least max_images 32, got 8"),
        ({"precision": "int8", "gpus": 1}, "gpus must be 0 with precision int8, which is computed on CPUs, got 1"),
        ({"gpus": 1.5}, r"gpus must be a share of one or a whole number, got 1\.5"),
        ({"api_key_file": ""}, "api_key_file must name a file; without keys leave the option out"),
        (
            {"cors_origins": ("https://shop.example/",)},
            r"cors_origins must be \* or scheme://host\[:port\] with",
        ),
        ({"models": {"a/b": "x"}}, "must be a name of letters, digits and . _ -, got 'a/b'"),
        ({"colour": 1}, "colour is no field of Settings"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        Settings(**fields)
    assert "\n" not in str(caught.value)


def test_local_places_are_absolute_for_a_replica_in_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert from_root("best") == str(tmp_path / "best")
    assert from_root("~/best") == str(tmp_path / "home" / "best")
    assert from_root("s3://bucket/best") == "s3://bucket/best"
    args = Args(checkpoint="best", api_key_file="keys", models={"dogs": "dogs", "cats": "gs://bucket/cats"})
    assert args.checkpoint == str(tmp_path / "best")
    assert args.api_key_file == os.path.join(tmp_path, "keys")
    assert args.models == {"dogs": str(tmp_path / "dogs"), "cats": "gs://bucket/cats"}


def test_defaults_hold_and_survive_json() -> None:
    assert Settings().batch <= Settings().max_waiting
    args = Args(checkpoint="/best", version="3")
    assert Args.model_validate_json(args.model_dump_json()) == args
    assert args.name == "resnet"


@pytest.mark.parametrize(
    ("threads", "gpus", "used"), [(None, 0, 1), (None, 1, 4), (None, 0.25, 1), (2, 1, 2), (3, 0, 3)]
)
def test_beside_a_gpu_more_threads_decode(threads: int | None, gpus: float, used: int) -> None:
    assert Settings(threads=threads, gpus=gpus).threads_used == used
