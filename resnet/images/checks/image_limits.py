"""Limits of an encoded image that hold before it is decoded, and the errors of an image that is not decoded.

`LIMITS` is what preparation, training, evaluation and offline prediction use; the endpoint lowers `bytes` and `pixels`
to its settings max_bytes and max_pixels. Every sentence of an error names the limit and what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


class CorruptImage(ValueError):
    """The bytes give no RGB image: empty, truncated, corrupt, over a limit, or of a kind that is not decoded."""


class RefusedKind(CorruptImage):
    """An image, or another file, of a kind that resnet/images/checks/image_kinds.py lists as refused."""


class TooLarge(CorruptImage):
    """More bytes or pixels than the limit, as stored or once resized."""


class TooMuchWork(CorruptImage):
    """More scans, parts, or decoding work than the limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one encoded image. All limits are inclusive.

    bytes: of the file
    pixels: height x width, as stored and once resized
    reduced_pixels: height x width of a JPEG that preparation scales down by 2, 4 or 8 while it decodes
        (--shorter-side); memory is that of the reduced image, and a band of rows
    reduced_buffered_pixels: the same for a progressive JPEG, whose coefficients (up to 6 bytes a pixel) lie in memory
    scans: of a JPEG. Encoders write 10 for colour and 18 for CMYK (libjpeg's jpeg_simple_progression)
    pixel_scans, byte_scans: pixels x scans and bytes x scans: each scan visits every block of the image
    parts: chunks of a PNG, blocks of a GIF, strips or tiles of a TIFF, segments of a JPEG, boxes of a JPEG 2000:
        Pillow handles them one by one in Python, some microseconds each
    """

    bytes: int = 2**29
    pixels: int = 89_478_485  # Pillow's own bound of what is no decompression bomb; 1.6 GiB for a transparent GIF
    reduced_pixels: int = 1_000_000_000
    reduced_buffered_pixels: int = 178_956_970
    scans: int = 100
    pixel_scans: int = 2_000_000_000
    byte_scans: int = 6_000_000_000
    parts: int = 65_536

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ValueError(f"{field.name} must be at least 1, got {getattr(self, field.name)}")

    def check_bytes(self, size: int) -> None:
        """Raises TooLarge if a file of this size must not be decoded, CorruptImage if it is empty."""
        if size < 1:
            raise CorruptImage("an image must have bytes, got no bytes")
        if size > self.bytes:
            raise TooLarge(f"an image must have at most {self.bytes:,} bytes, got {size:,}")

    def check_pixels(self, height: int, width: int) -> None:
        """Raises TooLarge if there are too many pixels, CorruptImage if there are none."""
        if height < 1 or width < 1:
            raise CorruptImage(f"an image must have pixels, got {width} x {height}")
        if height * width > self.pixels:
            raise TooLarge(f"an image must have at most {self.pixels:,} pixels, got {width} x {height}")

    def check_scans(self, scans: int, height: int, width: int, size: int) -> None:
        """Raises TooMuchWork if a JPEG has too many scans for its pixels or bytes. scans: `self.scans + 1` if more."""
        if scans > self.scans:
            raise TooMuchWork(f"a JPEG must have at most {self.scans} scans, got more")
        for name, amount, most in (("pixels", height * width, self.pixel_scans), ("bytes", size, self.byte_scans)):
            if amount * scans > most:
                raise TooMuchWork(
                    f"a JPEG must have at most {most:,} {name} x scans, got {amount:,} {name} x {scans} scans"
                )

    def check_parts(self, parts: int, what: str) -> None:
        """Raises TooMuchWork if a file has too many parts. what: their name in the sentence."""
        if parts > self.parts:
            raise TooMuchWork(f"an image must have at most {self.parts:,} {what}, got more")


LIMITS = Limits()
