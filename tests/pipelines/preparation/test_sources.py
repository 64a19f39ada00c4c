"""What a source is, is told by its files; what is none is one sentence."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.preparation.sources import Source, list_source


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda p: None, r"must hold one of .*, it holds nothing"),
        (lambda p: (p / "train" / "cat").mkdir(parents=True), r"has no images in split train"),
        (lambda p: [(p / s).mkdir() for s in ("train", "val")], r"must hold a folder for each class"),
        (
            lambda p: [(p / s / "cat").mkdir(parents=True) for s in ("train", "val")],
            "has no images in split train",
        ),
        (
            lambda p: [(p / s).mkdir(parents=True) for s in ("train/cat", "val/cat", "val/dog")],
            "every class in val/ must be in train/ too, dog is not",
        ),
        (lambda p: (p / "x.txt").write_text("x"), r"must hold one of .*, it holds x.txt"),
    ],
)
def test_what_is_no_source_is_one_sentence(tmp_path: Path, make: Any, sentence: str) -> None:
    make(tmp_path)
    with pytest.raises(ValueError, match=sentence) as error:
        list_source(Source(path=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_paths_that_cannot_be_a_source_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"x")
    for source, sentence in [
        (Source(path=str(tmp_path / "none")), "must exist"),
        (Source(path=str(tmp_path / "a.tar.gz")), "compressed archive, unpack it first"),
        (Source(path="nosuchscheme://x"), "cannot open nosuchscheme://x"),
        (Source(), r"source.path must name a folder"),
        (Source(kind="digits", path="x"), "must be left out with source.kind digits"),
        (Source(path=str(tmp_path), kind="cifar10"), "cifar10's binary or python form"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            list_source(source)
