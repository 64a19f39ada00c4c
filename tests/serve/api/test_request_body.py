"""What a body is unpacked from: gzip of several members, deflate of both kinds, base64 in JSON."""

import base64
import gzip
import json
import zlib

import pytest

from serve.api.request_body import from_base64, json_images, unpack
from serve.problems import Problem

TEXT = b"an image" * 1000


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    "packed",
    [
        gzip.compress(TEXT),
        b"".join(gzip.compress(TEXT[i : i + 1000]) for i in range(0, len(TEXT), 1000)),
        gzip.compress(b"") + gzip.compress(TEXT) + b"\0" * 512,
        zlib.compress(TEXT),
        bare_deflate(TEXT),
    ],
)
def test_all_members_are_unpacked(packed: bytes):
    assert unpack(packed, len(TEXT)) == TEXT
    with pytest.raises(Problem, match="at most 7,999 bytes, also unpacked") as told:
        unpack(packed, len(TEXT) - 1)
    assert told.value.status == 413


@pytest.mark.parametrize("packed", [b"plain", gzip.compress(TEXT)[:-9], gzip.compress(TEXT) + b"more", b"\x1f\x8b"])
def test_what_is_no_gzip_is_said(packed: bytes):
    with pytest.raises(Problem, match="not what its Content-Encoding says") as told:
        unpack(packed, 10**6)
    assert told.value.status == 400


def test_a_bomb_of_many_members_stops_at_the_limit():
    with pytest.raises(Problem, match="also unpacked"):
        unpack(gzip.compress(b"\0" * 10**5) * 1000, 10**6)


IMAGE = b"\xff\xd8\xff\xfb\xf0 picture"
CODED = base64.b64encode(IMAGE).decode()


@pytest.mark.parametrize(
    "text",
    [
        CODED,
        CODED.rstrip("="),
        base64.urlsafe_b64encode(IMAGE).decode(),
        f"data:image/jpeg;base64,{CODED}",
        base64.encodebytes(IMAGE).decode(),
        f"{CODED[:8]}\r\n{CODED[8:]}",
    ],
)
def test_base64_as_it_is_written(text: str):
    assert from_base64(text) == IMAGE


@pytest.mark.parametrize(
    ("given", "status", "words"),
    [
        ({}, 422, r"got neither"),
        ({"image": CODED, "images": [CODED]}, 422, "got both"),
        ({"images": []}, 422, "got neither"),
        ({"image": 3}, 422, "image must be a valid string, got 3"),
        ({"image": "no base64!"}, 422, "an image in JSON must be base64, got 'no base64!'"),
        ({"images": [CODED, "?"]}, 422, "image 2 of 2 in JSON must be base64"),
        ({"image": CODED, "top_k": 3}, 422, "top_k is no field"),
        ({"instances": [{"b64": CODED}]}, 422, r'must be \{"image": "BASE64"\}'),
        ({"images": [CODED] * 3}, 413, "at most 2 images, got 3"),
    ],
)
def test_json_that_cannot_be_used_is_named(given: dict[str, object], status: int, words: str):
    with pytest.raises(Problem, match=words) as told:
        json_images(json.dumps(given).encode(), 2)
    assert told.value.status == status


def test_json_of_one_or_several():
    assert json_images(json.dumps({"image": CODED}).encode(), 2) == [IMAGE]
    assert json_images(json.dumps({"images": [CODED, CODED], "image": None}).encode(), 2) == [IMAGE, IMAGE]
