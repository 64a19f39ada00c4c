from typing import Any

import numpy as np
import pytest

from resnet.images.checks.image_limits import CorruptImage
from serve.inference.classifier import Classifier
from serve.inference.dense.dense_model import DenseModel
from serve.inference.dense.open_model import open_model, open_offline, task_there
from serve.inference.offline_classifier import Offline
from tests.serve.dense_checkpoints import write_dense


def test_the_task_of_a_checkpoint_decides(cifar, tmp_path, picture):
    folder = write_dense(tmp_path / "net", "detection")
    assert [task_there(str(place)) for place in (cifar, folder)] == ["classification", "detection"]
    assert type(open_model(str(cifar))) is Classifier
    assert type(open_model(str(folder))) is DenseModel
    assert type(open_offline(str(cifar))) is Offline
    offline, served = open_offline(str(folder)), open_model(str(folder))
    answers: list[Any] = [model.run_batch([model.crop(picture(0))])[0] for model in (offline, served)]
    assert all(np.array_equal(a, b) for a, b in zip(answers[0].found, answers[1].found, strict=True))
    with pytest.raises((ValueError, CorruptImage), match="an image"):
        offline.crop(b"no image")


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a checkpoint must hold model.safetensors"):
        open_model(str(tmp_path))
