"""The curves and the table of one finished run."""

from typing import Any

from PIL import Image

from pipelines.training import run_summary
from pipelines.training.run_folder import TrainingOutcome
from resnet.training.checkpoint import EpochRow


def test_curves_of_one_run_are_a_picture(tmp_path):
    fields: dict[str, Any] = {
        "train_loss": 1.0,
        "val_loss": 1.0,
        "top5_error": 1.0,
        "seconds": 1.0,
        "images_per_second": 1.0,
    }
    rows = [
        EpochRow(epoch=i, step=10 * i + 10, lr=0.1, train_error=90 - i, top1_error=80 - i, **fields) for i in range(3)
    ]
    path = run_summary.curves("a-name-of-ones-own", "imagenet-resnet50-B-v1.5", rows, tmp_path)
    with Image.open(path) as image:
        assert image.format == "PNG"


def outcome(**fields: Any) -> TrainingOutcome:
    known: dict[str, Any] = {
        "run": "cifar10-resnet8-A.s0", "recipe": "cifar10-resnet8-A", "seed": 0, "top1_error": 8.5, "top5_error": 0.25,
        "train_error": 4.0, "examples": 10_000, "epochs": 163.69, "steps": 64_000, "seconds": 1234.4,
        "images_per_second": 5678.9, "data": "/shards", "checkpoint": "/runs/step-00064000",
    }  # fmt: skip
    return TrainingOutcome(**known | fields)


def test_a_table_says_what_came_out_and_what_did_not():
    lines = [" ".join(line.split()) for line in run_summary.run_table(outcome()).splitlines()]
    assert lines[1] == "cifar10-resnet8-A.s0"
    for line in (
        "top-1 error 8.50 % of 10,000 images (top-5: 0.25 %)",
        "finished network not tested",
        "length 163.69 epochs, 64,000 steps, 5,679 img/s",
        "checkpoint /runs/step-00064000",
        "MLflow run none",
        "model not registered",
        "curves none",
    ):
        assert line in lines
    assert set(lines[2]) == set(lines[-1]) == {"─"}
    assert not any(line.startswith(("begun with", "network ")) for line in lines)


def test_a_table_of_a_registered_and_fine_tuned_run_says_more():
    told = run_summary.run_table(
        outcome(final_top1_error=8.4, final_train_error=1.25, model_version="3", champion="champion is now version 3",
                chosen_epoch=7, init="resnet50.pth", init_sha256="0123456789abcdef", mlflow_run="r1")
    )  # fmt: skip
    words = " ".join(told.split())
    assert "8.40 % top-1 error, 1.25 % on the training images, in float32 without augmentation" in words
    assert "model resnet version 3; champion is now version 3" in words
    assert "begun with resnet50.pth, sha256 0123456789ab" in words
    assert "network of epoch 7, the best" in words
