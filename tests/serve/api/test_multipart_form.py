"""Multipart forms as browsers, curl and libraries write them."""

import pytest

from serve.api.multipart_form import form_files
from serve.problems import Problem

JPEG, OTHER = b"\xff\xd8\xff\xe0 a picture\r\n--b no boundary\r\n", b"GIF89a another"
FORM = "multipart/form-data; boundary=b0"


def form(*parts: tuple[str, bytes], end: bytes = b"--b0--\r\n") -> bytes:
    return b"".join(b"--b0\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n" for head, data in parts) + end


def field(words: str, kind: str = "") -> str:
    return f"Content-Disposition: form-data; {words}" + (f"\r\nContent-Type: {kind}" if kind else "")


@pytest.mark.parametrize(
    "head",
    [
        field('name="image"; filename="a.jpg"', "image/jpeg"),
        field("name=image; filename=a.jpg"),
        field("name=\"image\"; filename*=UTF-8''na%C3%AFve%20file.jpg"),
        field('name="image"; filename="näive.jpg"'),
        field('filename="a;b.jpg"; name="image"'),
        field('name="image"', "image/jpeg"),
        field('name="image"', "application/octet-stream"),
        field('name="image"'),  # curl -F image=<a.jpg
        'content-disposition: form-data; name="image"',
        "Content-Type: image/jpeg",  # multipart/mixed
    ],
)
def test_a_part_with_an_image_is_a_file_however_it_is_named(head: str):
    assert form_files(form((head, JPEG)), FORM, 2) == [JPEG]


def test_files_keep_their_order_and_empty_ones_of_a_browser_are_no_files():
    body = form(
        (field('name="one"; filename="a"'), JPEG),
        (field('name="none"; filename=""', "application/octet-stream"), b""),
        (field('name="two"'), OTHER),
        (field('name="empty"'), b""),
        (field('name="text"; filename="notes.txt"', "text/plain"), b"no picture"),
    )
    assert form_files(b"a preamble\r\n" + body, 'Multipart/Form-Data; charset=utf-8; boundary="b0"', 3) == [
        JPEG,
        OTHER,
        b"no picture",
    ]


@pytest.mark.parametrize(
    ("content_type", "body", "status", "words"),
    [
        ("multipart/form-data", form(), 400, "must name its boundary"),
        ("multipart/form-data; boundary=", form(), 400, "must name its boundary"),
        (f"multipart/form-data; boundary={'b' * 300}", form(), 400, "malformed"),
        (FORM, b"", 400, "ends too early"),
        (FORM, form((field("name=i; filename=f"), JPEG), end=b""), 400, "ends too early"),
        (FORM, b"--b0\r\nno header\r\n\r\nx\r\n--b0--", 400, "malformed"),
        (FORM, b"--other\r\n", 400, "malformed|too early"),
        (FORM, form(), 422, "must have a file, got none"),
        (FORM, form((field("name=note"), b"text")), 422, "must have a file, got only field note"),
        (FORM, form((field("name=image; filename="), b"")), 422, "must have a file, got none"),
        (FORM, form((field("name=i; filename=f"), JPEG), (field("name=top_k"), b"3")), 422, r"address: \?top_k=3"),
        (FORM, form((field("name=i; filename=f"), JPEG), (field("name=a"), b"b")), 422, "files only, got field a;"),
        (FORM, form(*[(field("name=i; filename=f"), JPEG)] * 3), 413, "at most 2 images, got 3"),
        (FORM, form(*[(field("name=i; filename=f"), b"x")] * 9999), 413, "at most 2 images, got more"),
    ],
)
def test_a_form_that_cannot_be_used_is_named(content_type: str, body: bytes, status: int, words: str):
    with pytest.raises(Problem, match=words) as told:
        form_files(body, content_type, 2)
    assert told.value.status == status
