"""The kinds of image files: which are decoded, which are refused, and by which rule. One table for all of the project.

    python -m resnet.images.checks.image_kinds        docs/image-kinds.md

A kind is told by the content of a file, never by its name. What is decoded here is decoded in preparation, training,
evaluation, prediction and by the endpoint.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from resnet.host.closed_pipe import quiet_when_closed
from resnet.images.checks.image_limits import LIMITS, CorruptImage, RefusedKind


class Kind(NamedTuple):
    """A kind of file. media_type: empty for what is refused; suffixes: of file names, lower case, the usual one first.

    marks: (offset, bytes) any of which tells the kind; brands: of an ISO media file, any of which tells it;
    reader: Pillow's name of it (of DICOM it is pydicom), None if it is refused; hint: what to do with a refused one.
    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    marks: tuple[tuple[int, bytes], ...]
    brands: tuple[bytes, ...] = ()
    reader: str | None = None
    hint: str = ""


class Variant(NamedTuple):
    """A variant of a kind, and what becomes of it. name: as in an error; rule: of what is decoded, else the reason."""

    kind: str
    name: str
    decoded: bool
    rule: str


HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
CONVERT = "convert it to JPEG or PNG"

KINDS: tuple[Kind, ...] = (
    Kind("JPEG", "image/jpeg", ("jpg", "jpeg", "jpe", "jfif"), ((0, b"\xff\xd8\xff"),), reader="JPEG"),
    Kind("PNG", "image/png", ("png", "apng"), ((0, b"\x89PNG\r\n\x1a\n"),), reader="PNG"),
    Kind("WebP", "image/webp", ("webp",), ((8, b"WEBPVP8"),), reader="WEBP"),
    Kind("GIF", "image/gif", ("gif",), ((0, b"GIF87a"), (0, b"GIF89a")), reader="GIF"),
    Kind("BMP", "image/bmp", ("bmp", "dib"), ((0, b"BM"),), reader="BMP"),
    Kind("AVIF", "image/avif", ("avif",), (), (b"avif", b"avis"), reader="AVIF"),
    Kind(
        "TIFF",
        "image/tiff",
        ("tif", "tiff"),
        ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")),
        reader="TIFF",
    ),
    Kind(
        "PNM",
        "image/x-portable-anymap",
        ("ppm", "pgm", "pbm", "pnm"),
        tuple((0, b"P%d%c" % (n, s)) for n in range(1, 7) for s in b" \t\n\r#"),
        reader="PPM",
    ),
    Kind(
        "JPEG 2000",
        "image/jp2",
        ("jp2", "j2k", "jpx", "jpf", "j2c", "jpc"),
        ((0, b"\0\0\0\x0cjP  \r\n\x87\n"), (0, b"\xff\x4f\xff\x51")),
        reader="JPEG2000",
    ),
    Kind("ICO", "image/x-icon", ("ico",), ((0, b"\0\0\1\0"),), reader="ICO"),
    Kind("DICOM", "application/dicom", ("dcm", "dicom"), ((128, b"DICM"),), reader="DICOM"),
    Kind("HEIC", "", ("heic", "heif"), (), HEIC, hint=CONVERT),
    Kind("JPEG XL", "", ("jxl",), ((0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL \r\n\x87\n")), hint=CONVERT),
    Kind("QOI", "", ("qoi",), ((0, b"qoif"),), hint=CONVERT),
    Kind("PSD", "", ("psd",), ((0, b"8BPS"),), hint=CONVERT),
    Kind("OpenEXR", "", ("exr",), ((0, b"\x76\x2f\x31\x01"),), hint="choose a range of levels, and write 16-bit PNG"),
    Kind("PFM", "", ("pfm",), ((0, b"Pf\n"), (0, b"PF\n")), hint="choose a range of levels, and write 16-bit PNG"),
    Kind("Canon raw", "", ("cr2",), ((8, b"CR\x02"),), hint=CONVERT),
    Kind("SVG or other XML", "", ("svg",), ((0, b"<svg"), (0, b"<?xml")), hint="draw it as PNG"),
    Kind("PDF", "", (), ((0, b"%PDF-"),), hint="draw its pages as PNG"),
    Kind("PostScript", "", (), ((0, b"%!PS"),), hint="draw its pages as PNG"),
    Kind("HTML", "", (), ((0, b"<!DOCTYPE"), (0, b"<!doctype"), (0, b"<html")), hint="a web page came instead"),
    Kind("Git LFS pointer", "", (), ((0, b"version https://git-lfs"),), hint="`git lfs pull` fetches the image"),
    Kind("JSON", "", (), ((0, b"{"), (0, b"[")), hint="send the bytes of the file itself"),
    Kind(
        "base64 text",
        "",
        (),
        ((0, b"data:image/"), (0, b"/9j/"), (0, b"iVBORw0KGgo"), (0, b"UklGR")),
        hint="send the bytes that it stands for",
    ),
    Kind("MP4 or QuickTime", "", (), ((4, b"ftyp"),), hint="write its frames as JPEG or PNG"),
    Kind("gzip", "", (), ((0, b"\x1f\x8b"),), hint="unpack it"),
    Kind("ZIP", "", (), ((0, b"PK\x03\x04"),), hint="unpack it"),
)

FIRST = "the first frame counts"
EIGHT = "by the range of grey levels (above)"
VARIANTS: tuple[Variant, ...] = (
    Variant("JPEG", "baseline, extended, progressive; grey, YCbCr, RGB", True, "by libjpeg-turbo, as Pillow's pixels"),
    Variant("JPEG", "CMYK, YCCK", True, "Pillow's conversion: (255 - C)(255 - K) / 255"),
    Variant("JPEG", "arithmetic coding", True, "by Pillow, where its libjpeg has it"),
    Variant("JPEG", "12 bits a sample", False, "8 bits are read"),
    Variant("JPEG", "two components", False, "grey has one, colour three or four"),
    Variant("JPEG", "lossless or hierarchical", False, "Huffman and arithmetic DCT frames are read"),
    Variant("JPEG", "several images (MPO)", True, "the first image counts"),
    Variant("PNG", "1, 2, 4, 8 bits; grey, palette, RGB; interlaced or not", True, "as Pillow's pixels"),
    Variant("PNG", "alpha, or a transparent colour", True, "laid over white"),
    Variant("PNG", "16 bits, grey", True, EIGHT + "; a transparent level is not looked at"),
    Variant("PNG", "16 bits, RGB, RGBA, or grey with alpha", True, "the upper eight bits"),
    Variant("PNG", "animated (APNG)", True, FIRST),
    Variant("WebP", "lossy, lossless", True, "as Pillow's pixels"),
    Variant("WebP", "alpha", True, "laid over white"),
    Variant("WebP", "animated", True, FIRST),
    Variant("GIF", "still, transparent", True, "a transparent colour is laid over white"),
    Variant("GIF", "animated", True, FIRST),
    Variant("BMP", "1, 4, 8, 16, 24, 32 bits", True, "as Pillow's pixels"),
    Variant("BMP", "run-length encoded", False, "Pillow decodes it in Python: 0.2 s a MB"),
    Variant("AVIF", "8, 10, 12 bits; alpha", True, "as Pillow's 8-bit pixels, alpha laid over white"),
    Variant("AVIF", "animated", True, FIRST),
    Variant(
        "TIFF", "1 to 8 bits; grey, palette, RGB, CMYK, YCbCr, alpha", True, "as Pillow's pixels, alpha over white"
    ),
    Variant("TIFF", "16 bits, grey", True, EIGHT),
    Variant("TIFF", "16 bits, RGB or CMYK", True, "the upper eight bits"),
    Variant("TIFF", "32-bit integers", False, "write 16-bit grey; levels up to 65,535 are read as such"),
    Variant("TIFF", "32-bit floats", False, "levels have no bound: write 16-bit grey"),
    Variant("TIFF", "several pages", True, "the first page counts"),
    Variant("PNM", "PBM, PGM, PPM; plain or binary, 8 bits", True, "levels 0 to the declared maximum become 0 to 255"),
    Variant("PNM", "PGM of more than 8 bits", True, EIGHT + ", by default up to the declared maximum"),
    Variant("PNM", "PPM of more than 8 bits", True, "levels 0 to the declared maximum become 0 to 255"),
    Variant("JPEG 2000", "grey, RGB, alpha", True, "as Pillow's pixels, alpha laid over white"),
    Variant("JPEG 2000", "16 bits, grey", True, EIGHT),
    Variant("ICO", "BMP or PNG inside", True, "the image that Pillow chooses, the largest; laid over white"),
    Variant(
        "DICOM",
        "grey of up to 16 bits with a window",
        True,
        "rescaled (slope, intercept), then by its first window: linear, linear exact or sigmoid; MONOCHROME1 inverted",
    ),
    Variant("DICOM", "grey without a window", True, "stored levels " + EIGHT + ", by default all bits stored"),
    Variant("DICOM", "RGB of 8 bits", True, "as stored"),
    Variant("DICOM", "several frames", False, "write each frame as an image of its own"),
    Variant("DICOM", "compressed, or big endian", False, "write it uncompressed, e.g. by `gdcmconv --raw`"),
    Variant("DICOM", "palette, YBR or other colours", False, "MONOCHROME1, MONOCHROME2 and RGB are read"),
    Variant("DICOM", "1 bit, more than 16 bits, or colour of more than 8", False, "8 and 16 bits are read"),
)

MARKS = tuple((at, mark, kind) for kind in KINDS for at, mark in kind.marks)
DECODED: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind.reader)
NAMES = ", ".join(kind.name for kind in DECODED[:-1]) + f" or {DECODED[-1].name}"
MEDIA_TYPES: tuple[str, ...] = tuple(kind.media_type for kind in DECODED)
SUFFIXES: tuple[str, ...] = tuple(suffix for kind in DECODED for suffix in kind.suffixes)
REFUSED_SUFFIXES: tuple[str, ...] = tuple(s for kind in KINDS if not kind.reader for s in kind.suffixes)


def kind_of(data: bytes) -> Kind:
    """The kind of a file that is decoded. Raises RefusedKind for a known other kind, CorruptImage for anything else."""
    kind = find_kind(data)
    if kind is None:
        found = "none of these" if data else "no bytes"
        raise CorruptImage(f"an image must be {NAMES}, got {found}" + (f" ({data[:8]!r}...)" if data else ""))
    if kind.reader is None:
        raise RefusedKind(f"an image must be {NAMES}, got {kind.name}: {kind.hint}")
    return kind


def find_kind(data: bytes) -> Kind | None:
    """The kind of a file, decoded or not; None if no mark of the table fits."""
    brands = _brands(data)
    if brands:  # in the table's order: an AVIF names mif1 too
        by_brand = next((kind for kind in KINDS if brands & set(kind.brands)), None)
        if by_brand is not None:
            return by_brand
    first = next((kind for at, mark, kind in MARKS if data.startswith(mark, at)), None)
    if first is not None and first.name == "TIFF" and data[8:11] == b"CR\x02":
        return kind_by_name("Canon raw")  # a TIFF whose first page is a thumbnail
    return first


def kind_by_name(name: str) -> Kind:
    """The kind of this name."""
    return next(kind for kind in KINDS if kind.name == name)


def refuse(kind: str, variant: str) -> RefusedKind:
    """The error of a variant that the table lists as refused."""
    row = next(v for v in VARIANTS if (v.kind, v.name, v.decoded) == (kind, variant, False))
    return RefusedKind(f"a {kind} of this variant is not decoded, got {variant}: {row.rule}")


def _brands(data: bytes) -> set[bytes]:
    """Brands of an ISO media file (MP4, HEIC, AVIF), without a mark of which it is none."""
    if data[4:8] != b"ftyp" or len(data) < 12:
        return set()
    (size,) = struct.unpack_from(">I", data)
    listed = data[16 : min(size, 256)]
    return {data[8:12], *(listed[i : i + 4] for i in range(0, len(listed) - 3, 4))}


def markdown() -> str:
    """docs/image-kinds.md."""
    lines = [
        HEAD.strip(),
        "",
        "| kind | media type | file names | variant | what becomes of it |",
        "|---|---|---|---|---|",
    ]
    for kind in DECODED:
        names = " ".join(f".{suffix}" for suffix in kind.suffixes)
        for i, row in enumerate(v for v in VARIANTS if v.kind == kind.name):
            first = (kind.name, kind.media_type, names) if i == 0 else ("", "", "")
            lines.append(f"| {' | '.join(first)} | {row.name} | {'' if row.decoded else '**refused**: '}{row.rule} |")
    refused = [f"| {kind.name} | {kind.hint} |" for kind in KINDS if not kind.reader]
    lines += ["", "## Refused by name", "", "| kind | what to do |", "|---|---|", *refused]
    limits = [f"| {name} | {value:,} | {what} |" for name, value, what in _limits()]
    lines += ["", "## Limits", "", LIMITS_HEAD.strip(), "", "| limit | default | of what |", "|---|---|---|", *limits]
    return "\n".join([*lines, "", TAIL.strip(), ""])


def _limits() -> list[tuple[str, int, str]]:
    told = {
        "bytes": "the file",
        "pixels": "height x width, as stored and once resized",
        "reduced_pixels": "height x width of a JPEG that preparation scales down while it decodes (`--shorter-side`)",
        "reduced_buffered_pixels": "the same, of a progressive JPEG",
        "scans": "scans of a JPEG",
        "pixel_scans": "pixels x scans of a JPEG",
        "byte_scans": "bytes x scans of a JPEG",
        "parts": "chunks, blocks, strips, tiles, segments or boxes of a file",
    }
    return [(name, getattr(LIMITS, name), what) for name, what in told.items()]


HEAD = """
# Kinds of images

Made by `python -m resnet.images.checks.image_kinds > docs/image-kinds.md` from the table that the code reads
(resnet/images/checks/image_kinds.py). A kind is told by the content of a file, never by its name. The answer is the
same in preparation, training, evaluation, `predict_images` and the endpoint; preparation lists what it refuses in the
manifest, with the reason, the endpoint answers 415 for a kind that is refused, 413 for a limit and 400 for what is
damaged.

Rules for all kinds:

- **Orientation.** The EXIF orientation is applied everywhere: pixels are upright before they are cropped, scaled or
  encoded again. Preparation counts the images that have one. XMP is not looked at.
- **Transparency** is laid over white.
- **Grey** is repeated in three channels; a palette is looked up.
- **More than 8 bits of grey** become 256 levels by a range (low, high): low and below is 0, high and above is 255, and
  between them the levels fall into 256 equal bins. Without one it is the whole range of the type, so 16 bits lose the
  lower eight; 12-bit data in 16-bit files then has 16 levels, and needs a range.
- **Colour profiles** are not applied: values are taken as sRGB.
- **Of an animation** or of several pages the first counts.
- **DICOM** needs pydicom, the extra `dicom`. Lookup tables for display, overlays and aspect ratios are not looked at.
  Preparation stores its picture as a PNG of 8 bits, without the header: no patient's name gets into the shards.
"""
LIMITS_HEAD = """
They hold before anything is decoded (resnet/images/checks/image_limits.py). The endpoint has lower ones for bytes and
pixels, its settings `max_bytes` and `max_pixels` (16 MiB and 50 million by default); `predict_images` has the
endpoint's default for pixels.
"""
TAIL = """
An image above the limit of pixels has a way in at preparation: a JPEG with `--shorter-side` is scaled down by 2, 4 or 8
while it is decoded, up to the limits for reduced images. Other kinds cannot be scaled down while they are decoded.
"""

if __name__ == "__main__":
    with quiet_when_closed():
        print(markdown(), end="")
