"""The page in a real browser: drop an image, read its classes."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from serve.inference.classifier import Classifier
from tests.serve.conftest import application, listening

Picture = Callable[..., bytes]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=15000",
]


def browse(url: str, profile: Path, *more: str) -> str:
    """The document after its scripts have run."""
    if BROWSER is None:
        pytest.skip("Chromium is not installed")
    words = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *more, "--dump-dom", url]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout


DRIVE = """
addEventListener("load", async () => {
  const given = new DataTransfer(), pause = (ms) => new Promise((done) => setTimeout(done, ms));
  for (const [name, coded] of %s) {
    given.items.add(new File([Uint8Array.from(atob(coded), (c) => c.charCodeAt(0))], name, { type: "image/jpeg" }));
  }
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
  %s
});
"""
HANG = """
const real = window.fetch;
window.fetch = (url, how) => (how?.body?.name === "hangs.jpg" ? new Promise(() => {}) : real(url, how));
"""
USE = 'document.querySelector("#key").value = "%s"; document.querySelector("#gate button").click(); await pause(1500);'


def dropped(live: str, folder: Path, files: dict[str, bytes], then: str = "", before: str = "") -> str:
    """The page, after files were dropped on it: an extension of the browser does what a hand does.

    then, before: script that runs after the drop, and before the page's own."""
    extension = folder / "extension"
    extension.mkdir()
    coded = json.dumps([[name, base64.b64encode(data).decode()] for name, data in files.items()])
    (extension / "drive.js").write_text(before + DRIVE % (coded, then))
    script = {"matches": ["http://127.0.0.1/*"], "js": ["drive.js"], "world": "MAIN", "run_at": "document_start"}
    manifest = {"manifest_version": 3, "name": "drive", "version": "1", "content_scripts": [script]}
    (extension / "manifest.json").write_text(json.dumps(manifest))
    allow = "--disable-features=DisableLoadExtensionCommandLineSwitch"
    return browse(live, folder / "profile", f"--load-extension={extension}", allow)


def headlines(page: str) -> list[str]:
    return re.findall(r"<article.*?<h2>(.*?)</h2>", page, re.DOTALL)


def test_the_answer_is_the_headline_beside_the_crop_that_the_network_saw(
    live: str, classifier: Classifier, picture: Picture, tmp_path: Path
):
    page = dropped(live, tmp_path, {"dog.jpg": picture(1)})  # 120 x 90; the network sees the middle 90 x 90
    assert "resnet, version 7: cifar10-resnet8-A, 10 classes" in page
    (best,) = classifier.predict([picture(1)], 5)
    assert re.findall(r"<b>(class \d+)</b>", page) == [p.image_class.name for p in best]
    assert headlines(page) == [best[0].image_class.name]
    assert re.search(r'<p class="file">dog\.jpg, \d+ ms, version 7</p>', page)
    assert 'style="width: 75%; height: 100%; left: 12.5%; top: 0%;"' in page
    assert "1 of 1 image answered" in page


def test_an_error_reads_like_a_sentence(live: str, tmp_path: Path):
    page = dropped(live, tmp_path, {"notes.txt": b"not an image at all"})
    assert re.search(r'<p class="error">An image must be JPEG[^<]+\.</p>', page)
    assert "1 of 1 image answered, 1 without success" in page


def test_one_request_that_hangs_holds_up_no_other_and_all_can_be_cleared(
    live: str, classifier: Classifier, picture: Picture, tmp_path: Path
):
    files = {"hangs.jpg": picture(0)} | {f"{seed}.jpg": picture(seed) for seed in range(1, 12)}
    wait = 'await pause(3000); document.title = document.querySelector("#status").textContent;'
    (tmp_path / "hang").mkdir()
    page = dropped(live, tmp_path / "hang", files, wait, HANG)
    assert "<title>11 of 12 images answered</title>" in page
    best = [found[0].image_class.name for found in classifier.predict(list(files.values())[1:], 1)]
    assert headlines(page) == ["Waiting", *best]
    (tmp_path / "clear").mkdir()
    clear = f'{wait} document.querySelector("#clear").click();'
    page = dropped(live, tmp_path / "clear", files, clear, HANG)
    assert headlines(page) == []
    assert re.search(r'<div id="bar" hidden', page)


def test_a_wrong_key_is_said_as_such_and_a_right_one_goes_on_with_what_waits(
    classifier: Classifier, cifar: Path, picture: Picture, tmp_path: Path
):
    (tmp_path / "keys").write_text(f"ann {'a' * 20}\n")
    app, inference = application(classifier, cifar, api_key_file=str(tmp_path / "keys"))
    told = 'document.title = document.querySelector("#gate-text").textContent;'
    with listening(app) as url:
        for name, then, title, headline in (
            ("none", f"await pause(500); {told}", "This server asks for a key.", "Waiting for a key"),
            ("wrong", f"await pause(500); {USE % 'wrong'} {told}", "The server does not know this key.", "Waiting"),
            ("right", f"await pause(500); {USE % ('a' * 20)}", "What is in the picture?", "class"),
        ):
            (tmp_path / name).mkdir()
            page = dropped(url, tmp_path / name, {"a.jpg": picture(1)}, then)
            assert f"<title>{title}</title>" in page
            assert headlines(page)[0].startswith(headline)
    inference.close()


def test_the_documentation_lists_the_routes(live: str, tmp_path: Path):
    page = browse(f"{live}/docs", tmp_path)
    for path in httpx.get(f"{live}/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page
