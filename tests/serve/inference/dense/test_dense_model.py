import io

import numpy as np
import pytest
import torch
from PIL import Image

from resnet.dense.dense_checkpoint import load_dense
from resnet.dense.detectors import Detections, as_input
from resnet.images.decode import decode
from serve.inference.dense.dense_model import DenseModel, FoundMask, palette_png
from tests.serve.dense_checkpoints import write_dense


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def model(request, tmp_path_factory):
    return DenseModel(str(write_dense(tmp_path_factory.mktemp("dense") / "net", request.param)))


def test_answers_are_in_the_image_s_own_pixels(model, picture):
    answers = model.run_batch([model.crop(picture(1, 120, 90)), model.crop(picture(2, 75, 150))])
    for answer, (width, height) in zip(answers, ((120, 90), (75, 150)), strict=True):
        if isinstance(answer, FoundMask):
            assert answer.mask.shape == (height, width)
            assert set(np.unique(answer.mask)) <= {0, 1}
        else:
            boxes = answer.found.boxes
            assert (answer.height, answer.width) == (height, width)
            assert len(boxes) > 0
            assert (boxes[:, 2] <= width).all()
            assert (boxes[:, 3] <= height).all()
            assert list(answer.found.scores) == sorted(answer.found.scores, reverse=True)


def test_a_batch_gives_each_image_the_answer_that_it_has_alone(model, picture):
    images = [model.crop(picture(seed, 120, 90)) for seed in range(3)]
    together, alone = model.run_batch(images), [model.run_batch([image])[0] for image in images]
    stacked = [model.stacked(answers) for answers in (together, alone)]
    assert all(np.array_equal(stacked[0][name], stacked[1][name]) for name in stacked[0])
    described = {name: len(shape) for name, _, shape in model.tensors}
    assert {name: values.ndim for name, values in stacked[0].items()} == described


def test_a_detector_answers_as_its_network_does(tmp_path, picture):
    folder, data = write_dense(tmp_path / "net", "detection"), picture(3, 100, 80)
    model = DenseModel(str(folder))
    (answer,) = model.run_batch([model.crop(data)])
    network = load_dense(folder).network()
    with torch.no_grad():
        wanted = Detections.of(network([as_input(decode(data), model.device)])[0])
    assert all(np.array_equal(a, b) for a, b in zip(answer.found, wanted, strict=True))


def test_what_a_card_says(model):
    assert (model.quality, model.top1_error) == ({"detection": 12.5, "segmentation": 62.5}[model.task], None)
    assert [c.name for c in model.classes] == ["cell", "plate"]
    assert model.preprocessing["crop"] == 0
    model.check_itself()


def test_masks_of_several_sizes_are_no_tensor():
    answers = [FoundMask(np.zeros((2, 3), np.uint8)), FoundMask(np.zeros((3, 3), np.uint8))]
    model = DenseModel.__new__(DenseModel)
    model.task = "segmentation"
    with pytest.raises(ValueError, match="images must be of one size"):
        model.stacked(answers)


def test_precisions(tmp_path):
    folder = write_dense(tmp_path / "net", "segmentation")
    with pytest.raises(ValueError, match="precision must be auto or float32 for boxes and masks, got int8"):
        DenseModel(str(folder), precision="int8")


def test_a_palette_shows_the_classes_and_keeps_their_ids():
    mask = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.open(io.BytesIO(palette_png(mask)))
    assert np.array_equal(np.asarray(image), mask)
    colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert len({tuple(color) for color in colors.tolist()}) == 3
