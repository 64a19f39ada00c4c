"""Features of a split: one row an image in its order, computed once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.evaluation.pooled_features import pooled_features
from pipelines.models.by_name import open_checkpoint
from pipelines.shards.row_groups import Split, open_split
from resnet.images.crops.evaluation_crops import center_crop


def test_features_are_those_of_the_network_for_each_centre_crop(untrained: Any, digits: str) -> None:
    (place,) = untrained(0).glob("step-*")
    model, checkpoint = open_checkpoint(str(place))
    manifest, val = open_split(digits, "val")
    found = pooled_features(model, val, manifest.fingerprint(), show=False)
    rows = [val.read(group) for group in range(len(val.rows))]
    assert found.labels.tolist() == [label for part in rows for label in part["label"]]
    images = np.stack([center_crop(data, 32, 32) for part in rows for data in part["image"]][:70])
    with torch.inference_mode():
        expected = checkpoint.network().embed(checkpoint.normalize()(torch.from_numpy(images)))
    np.testing.assert_allclose(found.features[:70], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_features_are_read_again_for_the_same_weights_and_data_only(
    untrained: Any, digits: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESNET_HOME", str(tmp_path))
    models = [open_checkpoint(str(next(untrained(seed).glob("step-*"))))[0] for seed in (0, 1)]
    val = open_split(digits, "val")[1]
    first = pooled_features(models[0], val, "data", show=False)
    monkeypatch.setattr(Split, "read", None)  # nothing is read twice
    again = pooled_features(models[0], val, "data", show=False)
    np.testing.assert_array_equal(first.features, again.features)
    head = models[0].weights | {"fc.bias": models[0].weights["fc.bias"] + 1}
    other_head = replace(models[0], weights=head)
    np.testing.assert_array_equal(pooled_features(other_head, val, "data", show=False).features, first.features)
    for model, data in ((models[1], "data"), (models[0], "other data")):
        with pytest.raises(TypeError, match="not callable"):
            pooled_features(model, val, data, show=False)
