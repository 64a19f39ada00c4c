"""A class of images is the same wherever it is read, and costs no import of torch."""

import subprocess
import sys

import pytest

from resnet.image_class import ImageClass


def test_a_class_survives_json() -> None:
    found = ImageClass(id=0, wnid="n01440764", name="Schleie, 文鰷魚")
    assert ImageClass.model_validate_json(found.model_dump_json()) == found
    assert found.model_dump() == {"id": 0, "wnid": "n01440764", "name": "Schleie, 文鰷魚"}


def test_a_label_below_zero_is_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"^id must be greater than or equal to 0, got -1$"):
        ImageClass(id=-1, wnid="a", name="a")


def test_importing_it_loads_no_torch() -> None:
    script = "import sys, resnet.image_class; print({'torch', 'numpy', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
