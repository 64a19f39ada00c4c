from pipelines.dense.dense_saving import DenseStore
from resnet.dense.dense_checkpoint import DenseRow

ROW = {"epoch": 0, "step": 3, "lr": 0.1, "train_loss": 1.0, "seconds": 1.0, "images_per_second": 1.0}


def test_the_best_are_those_of_the_highest_figure(tmp_path):
    store = DenseStore(str(tmp_path), keep=1)
    judged = [store._judged(DenseRow(**ROW, mean_ap=value).model_dump()) for value in (10.0, 40.0, None)]
    assert judged == [-10.0, -40.0, None]
    assert store._judged(DenseRow(**ROW, mean_iou=70.0).model_dump()) == -70.0
