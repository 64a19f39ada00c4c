"""/v1/search: the nearest images with key, distance and thumbnail; an index of another model is one sentence."""

from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from resnet.retrieval.vector_index import unit, write_index
from serve.deploy_checks import require_index
from serve.inference.classifier import Classifier
from serve.inference.offline_classifier import index_card
from serve.settings import Args
from tests.serve.api.test_pages import browse
from tests.serve.conftest import application, listening, write_checkpoint
from tests.serve.dense_checkpoints import write_dense

Picture = Callable[..., bytes]
pytest.importorskip("usearch", reason="usearch is not installed: an older .venv")


@pytest.fixture(scope="module")
def index(cifar: Path, classifier: Classifier, picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures."""
    out = tmp_path_factory.mktemp("search") / "index"
    embeddings = classifier.embed([picture(seed) for seed in range(40)])
    card = index_card(str(cifar), "resnet", "7").model_copy(update={"width": embeddings.shape[1]})
    write_index(out, card, [[(f"{seed}.jpg", picture(seed), embeddings[seed]) for seed in range(40)]])
    return out


def test_the_nearest_images_come_in_order_with_their_thumbnails(
    classifier: Classifier, cifar: Path, index: Path, picture: Picture
):
    app, inference = application(classifier, cifar, index=str(index))
    images = [picture(seed) for seed in range(40)]
    embeddings = unit(classifier.embed(images))
    with listening(app) as url:
        answer = httpx.post(f"{url}/v1/search?k=5", content=images[3]).json()
        assert (answer["model"], answer["version"], answer["indexed"]) == ("resnet", "7", 40)
        nearest = answer["images"][0]["nearest"]
        exact = 1 - embeddings @ embeddings[3]
        assert nearest[0]["key"] == "3.jpg"
        assert abs(nearest[0]["distance"]) < 2e-3
        numbers = [int(near["key"].removesuffix(".jpg")) for near in nearest]
        np.testing.assert_allclose(exact[numbers], np.sort(exact)[:5], atol=2e-3)
        assert nearest[0]["thumbnail"].startswith("data:image/jpeg;base64,/9j/")
        several = httpx.post(f"{url}/v1/search", files=[("image", images[8]), ("image", b"none")]).json()["images"]
        assert several[0]["nearest"][0]["key"] == "8.jpg"
        assert len(several[0]["nearest"]) == 10
        assert several[1]["error"]["status"] == 400
        card = httpx.get(f"{url}/v1/model").json()
        assert card["index"] == {"model": "resnet", "version": "7", "images": 40}
        assert "/v1/search" in httpx.get(f"{url}/openapi.json").json()["paths"]
        assert "k must be" in httpx.post(f"{url}/v1/search?k=0", content=images[0]).json()["detail"]
    inference.close()


def test_an_index_of_another_model_is_refused_by_the_job_and_by_the_route(
    index: Path, picture: Picture, tmp_path: Path
):
    other = write_checkpoint(tmp_path / "other", "cifar10-resnet8-A", 32, 10, seed=1)
    with pytest.raises(
        ValueError, match=r"index must be of the model that answers, resnet version 8, got one of resnet"
    ):
        require_index(Args(checkpoint=str(other), version="8", index=str(index)))
    cells = write_dense(tmp_path / "cells", "detection")
    with pytest.raises(ValueError, match="must be of classification here, got one of detection"):
        require_index(Args(checkpoint=str(cells), version="8", index=str(index)))
    app, inference = application(Classifier(str(other), precision="float32"), other, index=str(index))
    with listening(app) as url:
        answer = httpx.post(f"{url}/v1/search", content=picture(1))
        assert answer.status_code == 409
        assert answer.json()["detail"].endswith("index the images anew")
    inference.close()


def test_without_an_index_the_route_says_so(live: str, picture: Picture):
    answer = httpx.post(f"{live}/v1/search", content=picture(1))
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no /v1/search: no index is served (--index FOLDER)"
    with pytest.raises(ValueError, match=r"with index\.json, got"):
        require_index(Args(checkpoint="x", index="/nowhere"))
    with pytest.raises(ValueError, match="must be a folder that each node can reach, got s3://bucket/index"):
        Args(checkpoint="x", index="s3://bucket/index")


def test_the_page_has_a_tab_where_an_index_is_served(
    classifier: Classifier, cifar: Path, index: Path, live: str, tmp_path: Path
):
    app, inference = application(classifier, cifar, index=str(index))
    for name, hidden, url in (("without", " hidden", live), ("with", "", None)):
        with listening(app) as own:
            page = browse(url or own, tmp_path / name)
        assert f'<button id="search" type="button"{hidden}' in page.replace('hidden=""', "hidden"), page[:300]
    inference.close()
