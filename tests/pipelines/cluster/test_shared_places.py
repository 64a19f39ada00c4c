"""Machines that see a folder, and machines that do not; on real hosts: tests/cluster/test_submission.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipelines.cluster.shared_places import SharedPlace, require_everywhere, trial_file
from pipelines.storage import Folder


def test_a_file_of_the_same_content_is_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    (place,) = SharedPlace.of("data.path", Folder(str(tmp_path)), "manifest.json")
    place.require_here()
    (tmp_path / "manifest.json").write_text('{"other": 1}')
    with pytest.raises(ValueError, match=rf"^data.path must be a bucket or a folder .* got {tmp_path} of .* not see$"):
        place.require_here()


def test_a_folder_is_known_by_its_names(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (place,) = SharedPlace.of("images", Folder(str(tmp_path)))
    assert place.is_here()
    (tmp_path / "dog").mkdir()
    assert not place.is_here()
    assert not SharedPlace("images", "/x", "/nowhere", "0", "other").is_here()


def test_a_bucket_is_everywhere() -> None:
    folder = Folder("mock:///bucket/runs")
    assert SharedPlace.of("storage", folder, "holder.json") == []
    with trial_file("out", folder) as places:
        assert places == []


def test_what_is_tried_in_a_folder_is_removed(tmp_path: Path) -> None:
    with trial_file("out", Folder(str(tmp_path / "new"))) as (place,):
        assert place.is_here()
        assert place.folder == str(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    assert not place.is_here()


def test_nodes_of_one_machine_are_not_asked(ray_local: Any) -> None:
    require_everywhere([SharedPlace("storage", "/x", "/nowhere", "0", "other")])
