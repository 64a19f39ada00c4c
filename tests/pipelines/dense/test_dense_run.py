from pathlib import Path

import pytest

from pipelines.dense.dense_run import DetectorRun, SegmenterRun, dense_run


@pytest.mark.parametrize("kind", [DetectorRun, SegmenterRun])
def test_a_run_survives_its_json_with_its_class(kind, tmp_path):
    run = kind(data={"path": "cells"}, storage=str(tmp_path), recipe={"network": "imagenet-resnet18"})
    assert type(dense_run(run.model_dump_json())) is kind
    assert dense_run(run.model_dump_json()) == run
    head = {DetectorRun: "faster-rcnn", SegmenterRun: "fcn"}[kind]
    assert run.folder == f"{tmp_path}/imagenet-resnet18-A@{head}.s0"
    assert Path(run.data.path).is_absolute()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "data of SegmenterRun is missing"),
        (
            {"data": {"path": "x"}, "scaling": {"workers": 3}},
            "must be a multiple of scaling.workers, got 16 and 3",
        ),
        (
            {"data": {"path": "x"}, "scaling": {"workers": 16}, "recipe": {"head": "deeplabv3"}},
            "must leave each worker two images with head deeplabv3",
        ),
        ({"data": {"path": "x"}, "run_name": "a/b"}, "run_name"),
        ({"data": {"path": "x"}, "scaling": {"capture": "on"}}, r"scaling\.capture must be auto or off, got on"),
        ({"data": {"path": "x"}, "scaling": {"compile": "on"}}, r"scaling\.compile must be auto or off, got on"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        SegmenterRun(**fields)
