"""The images of a request: its body, unpacked, the files of a form, or base64 in JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import zlib
from functools import partial

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from resnet.frozen import sentence
from serve.api.multipart_form import form_files
from serve.problems import Problem
from serve.settings import Args

ENCODINGS = ("gzip", "x-gzip", "deflate")
EITHER = 32 + zlib.MAX_WBITS  # zlib finds out whether it is gzip or zlib
LARGE = 2**16  # bytes that take a millisecond to take apart: not on the event loop
JSON_FORM = '{"image": "BASE64"} or {"images": ["BASE64", ...]}'


async def body(request: Request, seconds: float, max_bytes: int) -> bytes:
    """The body's bytes, unpacked where it is gzip or deflate. Problem 408 where it takes too long, 413, 415."""
    try:
        async with asyncio.timeout(seconds):
            data = await request.body()
    except TimeoutError:
        raise Problem(408, f"the body must arrive within {seconds:g} seconds") from None
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("identity", ""):
        return data
    if encoding not in ENCODINGS:
        problem = Problem(415, f"Content-Encoding must be gzip, deflate or identity, got {encoding[:40]!r}")
        problem.headers["Accept-Encoding"] = "gzip, deflate"
        raise problem
    return await asyncio.to_thread(unpack, data, max_bytes)


def unpack(data: bytes, max_bytes: int) -> bytes:
    """The content of gzip (of several members too) or zlib data, as far as max_bytes: a few bytes may hold gigabytes.

    deflate means zlib's format, and some clients send the bare one.
    """
    unpacked, rest, bits = bytearray(), data, EITHER
    try:
        while rest:
            stream = zlib.decompressobj(wbits=bits)
            try:
                unpacked += stream.decompress(rest, max_bytes + 1 - len(unpacked))
            except zlib.error:
                if bits != EITHER or unpacked:
                    raise
                bits = -zlib.MAX_WBITS
                continue
            if len(unpacked) > max_bytes:
                raise Problem(413, f"a body must have at most {max_bytes:,} bytes, also unpacked")
            if not stream.eof:
                raise Problem(400, "the body is not what its Content-Encoding says: it ends too early")
            rest = stream.unused_data.lstrip(b"\0")  # tapes and discs fill up with zeros
    except zlib.error as error:
        raise Problem(400, f"the body is not what its Content-Encoding says: {error}") from None
    return bytes(unpacked)


async def images_of(request: Request, args: Args) -> list[bytes]:
    """The images of a request: its body, the files of a multipart form, or base64 in JSON."""
    data = await body(request, args.timeout, args.max_bytes)
    content_type = request.headers.get("content-type", "")
    if content_type.strip().lower().startswith("multipart/"):
        parse = partial(form_files, data, content_type, args.max_images)
    elif data[:64].lstrip().startswith((b"{", b"[")):
        parse = partial(json_images, data, args.max_images)
    else:
        return [data]
    return await asyncio.to_thread(parse) if len(data) > LARGE else parse()


class ImagesInJson(BaseModel):
    """Images as base64 in JSON, or as data URLs: one, or several."""

    model_config = ConfigDict(extra="forbid", title="the body")

    image: str | None = None
    images: list[str] | None = None


def json_images(data: bytes, most: int) -> list[bytes]:
    """The images of a body of JSON. Problem 422 says what it must be; 413 for more than `most`."""
    try:
        given = ImagesInJson.model_validate_json(data)
    except ValidationError as error:
        raise Problem(422, f"a body of JSON must be {JSON_FORM}: {sentence(error)[:200]}") from None
    texts = [text for text in (given.image, *(given.images or [])) if text is not None]
    if not texts or (given.image is not None and given.images is not None):
        raise Problem(422, f"a body of JSON must be {JSON_FORM}, got {'both' if texts else 'neither'}")
    if len(texts) > most:
        raise Problem(413, f"a request must have at most {most} images, got {len(texts)}")
    return [from_base64(text, i, len(texts)) for i, text in enumerate(texts)]


def from_base64(text: str, index: int = 0, count: int = 1) -> bytes:
    """The bytes behind base64, in lines or one, with the URL's alphabet or the usual one, or behind a data URL."""
    text = re.sub(r"^data:[^,]{0,200},", "", text)
    packed = "".join(text.split()).translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (ValueError, binascii.Error):
        which = "an image" if count == 1 else f"image {index + 1} of {count}"
        raise Problem(422, f"{which} in JSON must be base64, got {text[:20]!r}...") from None
