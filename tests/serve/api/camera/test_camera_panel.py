"""The Camera button in a real browser, with its pretended camera that shows photographs."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from serve.inference.classifier import Classifier
from tests.serve.api.camera.chromium import Page, browser
from tests.serve.conftest import application, listening

Picture = Callable[..., bytes]
ALLOWED = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
KEY = "a" * 20


def clip(photographs: list[bytes], path: Path) -> str:
    """Motion JPEG, which Chromium's pretended camera shows again and again: a flag for it."""
    with path.open("wb") as file:
        for data in photographs:
            stream = io.BytesIO()
            Image.open(io.BytesIO(data)).convert("RGB").resize((640, 480)).save(stream, "JPEG", quality=90)
            file.write(stream.getvalue())
    return f"--use-file-for-fake-video-capture={path}"


@pytest.fixture(scope="module")
def photographs(real_images: Path) -> list[bytes]:
    """A photograph of each class of Imagenette."""
    return [next(folder.iterdir()).read_bytes() for folder in sorted((real_images / "imagenette" / "val").iterdir())]


def number(page: Page, name: str) -> float:
    return float(page.value(f"document.getElementById('camera-{name}').textContent"))


def test_frames_of_the_camera_are_answered_and_their_latency_and_rate_shown(
    classifier: Classifier, cifar: Path, photographs: list[bytes], tmp_path: Path
):
    app, inference = application(classifier, cifar, deadline=5000)
    inference.warm_up()
    flags = [*ALLOWED, clip(photographs, tmp_path / "clip.mjpeg")]
    with listening(app) as url, browser(url, tmp_path / "profile", flags) as page:
        page.until("model !== null")
        page.value("document.getElementById('camera').click()")
        page.until("camera.times.length > 20", 60)
        assert "version 7" in page.value("document.getElementById('camera-told').textContent")
        rows = page.value("[...document.querySelectorAll('#camera-list b')].map((each) => each.textContent)")
        assert len(rows) == 5
        assert set(rows) <= {known.name for known in classifier.classes}
        assert page.value("document.getElementById('camera-best').textContent") == rows[0]
        assert 0 < number(page, "p50") <= number(page, "p99") < 5000
        assert 0 < number(page, "rate") < 100
        # what the network saw: the middle 480 x 480 of 640 x 480
        assert page.value("document.getElementById('camera-crop').style.width") == "75%"
        (stream,) = app.state.cameras.streams
        assert stream.counts["answered"] > 20
        page.value("document.getElementById('camera').click()")
        page.until("document.getElementById('camera-box').hidden")
        assert page.value("document.getElementById('video').srcObject") is None
        deadline = time.monotonic() + 10
        while app.state.cameras.streams and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not app.state.cameras.streams
    inference.close()


def test_what_the_camera_shows_is_what_is_answered(
    classifier: Classifier, cifar: Path, photographs: list[bytes], tmp_path: Path
):
    """Two clips of one photograph each: the page says what the network says of it."""
    app, inference = application(classifier, cifar, deadline=5000)
    best = [found[0].image_class.name for found in classifier.predict(photographs, 1)]
    other = next(i for i, name in enumerate(best) if name != best[0])
    with listening(app) as url:
        for i in (0, other):
            flags = [*ALLOWED, clip(photographs[i : i + 1], tmp_path / f"{i}.mjpeg")]
            with browser(url, tmp_path / f"profile{i}", flags) as page:
                page.until("model !== null")
                page.value("document.getElementById('camera').click()")
                page.until("camera.times.length > 3", 60)
                assert page.value("document.getElementById('camera-best').textContent") == best[i]
    inference.close()


def test_a_key_is_asked_for_and_a_camera_that_is_missing_said(
    classifier: Classifier, cifar: Path, photographs: list[bytes], tmp_path: Path
):
    (tmp_path / "keys").write_text(f"ann {KEY}\n")
    app, inference = application(classifier, cifar, api_key_file=str(tmp_path / "keys"), deadline=5000)
    flags = [*ALLOWED, clip(photographs, tmp_path / "clip.mjpeg")]
    shown = "document.getElementById('camera-told').textContent"
    with listening(app) as url:
        with browser(url, tmp_path / "profile", flags) as page:
            page.until("!document.getElementById('gate').hidden")
            page.value("document.getElementById('camera').click()")
            page.until(f"{shown} === 'Give a key, and press Camera again.'")
            page.value(
                f"document.getElementById('key').value = '{KEY}'; document.querySelector('#gate button').click()"
            )
            page.until("model !== null")
            page.value("document.getElementById('camera').click()")
            page.until("camera.times.length > 3", 60)
        with browser(url, tmp_path / "without", ["--use-fake-ui-for-media-stream"]) as page:
            page.until("!document.getElementById('gate').hidden")
            page.value("document.getElementById('camera').click()")
            page.until(f"{shown} === 'There is no camera that can be used.'")
    inference.close()
