"""What a client sent as an image: its type by content and its size by its header, before anything is decoded."""

from __future__ import annotations

from resnet.images import CorruptImage, scaled_size, size_of
from serve.problems import Problem

# Media type -> where its mark is in the file, and the mark. resnet.images reads more kinds than a stranger may send.
ACCEPTED = {
    "image/jpeg": (0, b"\xff\xd8\xff"),
    "image/png": (0, b"\x89PNG\r\n\x1a\n"),
    "image/webp": (8, b"WEBP"),
    "image/gif": (0, b"GIF8"),
    "image/bmp": (0, b"BM"),
    "image/avif": (4, b"ftypavif"),
}
ALLOWED = "JPEG, PNG, WebP, GIF, BMP or AVIF"
REFUSED = {
    "TIFF": (0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    "HEIC": (4, (b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1")),
    "JPEG XL": (0, (b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    "JPEG 2000": (0, (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    "SVG": (0, (b"<svg", b"<?xml")),
    "PDF": (0, (b"%PDF-",)),
    "MP4 or QuickTime": (4, (b"ftyp",)),
    "gzip": (0, (b"\x1f\x8b",)),
    "ZIP": (0, (b"PK\x03\x04",)),
}


def media_type(data: bytes) -> str:
    """The media type of an image by its first bytes. Problem 415 for a known other format, 400 for anything else."""
    for name, (offset, mark) in ACCEPTED.items():
        if data.startswith(mark, offset):
            return name
    for name, (offset, marks) in REFUSED.items():
        if data.startswith(marks, offset):
            raise Problem(415, f"an image must be {ALLOWED}, got {name}")
    raise Problem(400, f"an image must be {ALLOWED}, got {'none of these' if data else 'no bytes'}")


def check(data: bytes, max_pixels: int, shorter_side: int) -> None:
    """Problem 400, 413 or 415 for what must not be decoded. shorter_side: that of the evaluation's resize."""
    kind = media_type(data)
    try:
        height, width = size_of(data)
    except CorruptImage as error:
        # Pillow refuses a bomb while it opens it; resnet.images has no class of its own for that
        raise Problem(413 if "at most" in str(error) else 400, str(error)) from None
    if min(height, width) < 1:
        raise Problem(400, f"an image must have pixels, got {width} x {height} ({kind})")
    if height * width > max_pixels:
        raise Problem(413, f"an image must have at most {max_pixels} pixels, got {width} x {height}")
    # A hair of 1 x 100,000 pixels would grow to gigabytes when its shorter side is brought to shorter_side.
    high, wide = scaled_size(height, width, shorter_side)
    if high * wide > max_pixels:
        raise Problem(413, f"an image must not be so narrow, got {width} x {height}: scaled it is {wide} x {high}")
