"""The thousand classes are torchvision's, and their names those of the real samples."""

from pathlib import Path

from pipelines.shards import imagenet_classes


def test_the_thousand_classes_are_in_the_order_of_torchvisions_weights() -> None:
    from torchvision.models import ResNet50_Weights

    wnids = imagenet_classes.wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert (wnids[0], wnids[-1]) == ("n01440764", "n15075141")
    assert [imagenet_classes.names_by_wnid()[w] for w in wnids] == ResNet50_Weights.IMAGENET1K_V1.meta["categories"]


def test_the_names_of_the_real_samples_agree_with_the_table(real_images: Path) -> None:
    files = sorted((real_images / "imagenet-sample").rglob("*.JPEG"))
    assert len(files) == 250
    for file in files:
        wnid, name = file.stem.split("_", 1)
        assert imagenet_classes.names_by_wnid()[wnid].replace(" ", "_").lower() == name.lower()
