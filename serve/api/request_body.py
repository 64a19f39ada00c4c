"""The images of a request: its body, unpacked, or the files of a form."""

from __future__ import annotations

import asyncio
import zlib

from fastapi import Request
from starlette.datastructures import UploadFile

from serve.problems import Problem
from serve.settings import Args


async def body(request: Request, seconds: float, max_bytes: int) -> bytes:
    """The body's bytes, unpacked where it is gzip or deflate. Problem 408 where it takes too long, 413, 415."""
    try:
        async with asyncio.timeout(seconds):
            data = await request.body()
    except TimeoutError:
        raise Problem(408, f"the body must arrive within {seconds:g} seconds") from None
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding == "identity":
        return data
    if encoding not in ("gzip", "deflate"):
        raise Problem(415, f"Content-Encoding must be gzip, deflate or identity, got {encoding[:40]!r}")
    return await asyncio.to_thread(unpack, data, max_bytes)


def unpack(data: bytes, max_bytes: int) -> bytes:
    """The content of gzip or zlib data, as far as max_bytes: a small body may unpack to gigabytes."""
    stream = zlib.decompressobj(wbits=47)  # 47: finds out which of the two it is
    try:
        unpacked = stream.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise Problem(400, f"the body is not what its Content-Encoding says: {error}") from None
    if len(unpacked) > max_bytes:
        raise Problem(413, f"a body must have at most {max_bytes} bytes, also unpacked")
    if not stream.eof:
        raise Problem(400, "the body is not what its Content-Encoding says: it ends too early")
    return unpacked


async def images_of(request: Request, args: Args) -> list[bytes]:
    """The images of a request: its body, or the files of a multipart form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        return [await body(request, args.timeout, args.max_bytes)]
    if "content-encoding" in request.headers:
        raise Problem(415, "a multipart body must have no Content-Encoding")
    try:
        async with asyncio.timeout(args.timeout), request.form(max_files=args.max_images, max_fields=16) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise Problem(422, "a multipart body must have a file, got none; send it as image=@photo.jpg")
            return [await file.read() for file in files]
    except TimeoutError:
        raise Problem(408, f"the body must arrive within {args.timeout:g} seconds") from None
    except (KeyError, UnicodeError) as error:  # python-multipart on a form without boundary or with odd charsets
        raise Problem(400, f"the multipart form is malformed: {error}") from None
