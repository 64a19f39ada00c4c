"""What is accepted is told by content, and refused by name before it is decoded."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resnet.images.checks import image_kinds
from resnet.images.crops.evaluation_crops import center_crop
from serve.inference import upload_checks
from serve.inference.classifier import Classifier
from serve.problems import Problem


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


GRADIENT = Image.linear_gradient("L").convert("RGB").resize((40, 30))
JPEG = encoded(GRADIENT, "JPEG")
PNG = encoded(GRADIENT, "PNG")

ACCEPTED = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF"]


@pytest.mark.parametrize("kind", ACCEPTED)
def test_accepted_kinds_are_known_by_content(kind: str):
    data = encoded(GRADIENT, kind)
    assert upload_checks.media_type(data) == f"image/{kind.lower()}"
    upload_checks.check_upload(data, 10**4, 32)


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 400, "got no bytes"),
        (b"hello", 400, "got none of these"),
        (b"%PDF-1.7 ...", 415, "got PDF"),
        (b"<svg xmlns=''>", 415, "got SVG"),
        (b"\0\0\0\x18ftypheic", 415, "got HEIC"),
        (b"\xff\x0a" + bytes(40), 415, "got JPEG XL"),
        (b"RIFF\0\0\0\0WAVE", 400, "must be JPEG, PNG"),
        (b"\xff\xd8\xff" + b"\0" * 40, 400, "an image must"),
    ],
)
def test_what_is_none_is_refused_by_name(data: bytes, status: int, words: str):
    with pytest.raises(Problem, match=words) as caught:
        upload_checks.check_upload(data, 10**6, 32)
    assert caught.value.status == status


def png_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is; there are no pixels in it."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT", b"IEND"]
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (30_000, 30_000), (60_000, 1), (2**31 - 1, 2**31 - 1)])
def test_pixels_are_counted_before_decoding(width: int, height: int):
    with pytest.raises(Problem) as caught:
        upload_checks.check_upload(png_of(width, height), 10**6, 256)
    assert caught.value.status in (400, 413)
    assert (width, height) == (2**31 - 1, 2**31 - 1) or caught.value.status == 413


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([JPEG, PNG]), st.integers(0, 400), st.binary(max_size=20))
def test_damaged_images_are_never_anything_but_a_problem(data: bytes, at: int, noise: bytes):
    at = min(at, len(data))
    status = 400
    try:
        upload_checks.check_upload(data[:at] + noise + data[at + len(noise) :], 10**6, 32)
    except Problem as problem:
        status = problem.status
    assert status in (400, 413, 415)


def test_a_turned_photograph_is_answered_upright(classifier: Classifier):
    upright = Image.radial_gradient("L").convert("RGB").crop((0, 40, 96, 136))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    turned = encoded(upright.rotate(90, expand=True), "PNG", exif=exif)
    assert (classifier.crop(turned) == classifier.crop(encoded(upright, "PNG"))).all()


def test_repeated_scans_are_answered_413_at_once(with_scans: Callable[[bytes, int], bytes]):
    bomb = with_scans(encoded(GRADIENT, "JPEG", progressive=True), 20_000)
    began = time.process_time()
    with pytest.raises(Problem, match="at most 100 scans") as caught:
        upload_checks.check_upload(bomb, 50_000_000, 256)
    assert time.process_time() - began < 0.1
    assert caught.value.status == 413


def test_the_limit_that_is_told_is_the_limit():
    for most, told in ((1199, "1,199"), (10**9, "89,478,485")):
        with pytest.raises(Problem, match=f"at most {told} pixels, got") as caught:
            upload_checks.check_upload(png_of(40, 30) if most < 10**6 else png_of(30_000, 30_000), most, 32)
        assert caught.value.status == 413
    upload_checks.check_upload(PNG, 40 * 30, 30)


def test_a_variant_that_is_not_decoded_is_answered_415_and_damage_400():
    frame = JPEG.index(b"\xff\xc0")
    for data, status, words in (
        (JPEG[: frame + 4] + b"\x0c" + JPEG[frame + 5 :], 415, "12 bits a sample"),
        (JPEG[:frame] + JPEG[JPEG.index(b"\xff\xda") :], 400, "this JPEG has no frame or no scan"),
        (b'{"image": "..."}', 415, "got JSON: send the bytes of the file itself"),
    ):
        with pytest.raises(Problem, match=words) as caught:
            upload_checks.check_upload(data, 10**6, 32)
        assert caught.value.status == status


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_the_endpoint_sees_what_evaluation_sees(kind: str, orientation: int, classifier: Classifier):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(GRADIENT, kind, exif=exif)
    upload_checks.check_upload(data, 40 * 30, 30)
    assert (classifier.crop(data) == center_crop(data, classifier.size, classifier.shorter_side)).all()


def test_the_page_offers_what_is_decoded():
    page = (Path(upload_checks.__file__).parents[1] / "api" / "page.html").read_text()
    assert f'accept="{",".join(image_kinds.MEDIA_TYPES)}"' in page
    assert f"<small>{image_kinds.NAMES}. They go to this server only.</small>" in page


def test_the_endpoint_and_the_offline_prediction_refuse_alike(
    clients: Callable[..., Any], cifar: Path, with_scans: Callable[[bytes, int], bytes]
):
    from serve.inference.offline_classifier import Offline

    client, offline = clients(), Offline(str(cifar), precision="float32")
    frame = JPEG.index(b"\xff\xc0")
    for data, status in (
        (with_scans(encoded(GRADIENT, "JPEG", progressive=True), 500), 413),
        (png_of(60_000, 60_000), 413),
        (JPEG[: frame + 4] + b"\x0c" + JPEG[frame + 5 :], 415),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", 415),
        (JPEG[:300], 400),
        (b"hello", 400),
    ):
        answer = client.post("/v1/predict", content=data)
        assert answer.status_code == status
        with pytest.raises(ValueError, match=r"must|decoded") as caught:
            offline.crop(data)
        assert answer.json()["detail"] == str(caught.value)
    assert client.post("/v1/predict", content=encoded(GRADIENT, "TIFF")).status_code == 200
