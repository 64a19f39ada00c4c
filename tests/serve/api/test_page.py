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
addEventListener("load", () => {
  const bytes = Uint8Array.from(atob("%s"), (c) => c.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], "%s", { type: "image/jpeg" }));
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true }));
});
"""


def dropped(live: str, folder: Path, name: str, data: bytes) -> str:
    """The page, after a file was dropped on it: an extension of the browser does what a hand does."""
    extension = folder / "extension"
    extension.mkdir()
    (extension / "drive.js").write_text(DRIVE % (base64.b64encode(data).decode(), name))
    script = {"matches": ["http://127.0.0.1/*"], "js": ["drive.js"], "world": "MAIN", "run_at": "document_start"}
    manifest = {"manifest_version": 3, "name": "drive", "version": "1", "content_scripts": [script]}
    (extension / "manifest.json").write_text(json.dumps(manifest))
    allow = "--disable-features=DisableLoadExtensionCommandLineSwitch"
    return browse(live, folder / "profile", f"--load-extension={extension}", allow)


def test_a_dropped_image_is_classified(live: str, classifier: Classifier, picture: Picture, tmp_path: Path):
    page = dropped(live, tmp_path, "dog.jpg", picture(1))
    assert "resnet, version 7: cifar10-resnet8-A, 10 classes" in page
    assert "dog.jpg" in page
    (best,) = classifier.predict([picture(1)], 5)
    assert re.findall(r"<b>(class \d+)</b>", page) == [p.image_class.name for p in best]
    assert re.search(r"\d+ ms, version 7", page)


def test_an_error_reads_like_a_sentence(live: str, tmp_path: Path):
    page = dropped(live, tmp_path, "notes.txt", b"not an image at all")
    assert re.search(r'<p class="error">An image must be JPEG[^<]+\.</p>', page)


def test_the_documentation_lists_the_routes(live: str, tmp_path: Path):
    page = browse(f"{live}/docs", tmp_path)
    for path in httpx.get(f"{live}/openapi.json").json()["paths"]:
        assert f"<code>{path}</code>" in page
