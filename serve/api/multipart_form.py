"""The files of a multipart form, as browsers, curl and HTTP libraries write them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from resnet.images.checks import image_kinds
from serve.problems import Problem

FIELDS = 16  # parts beside the images before the rest is not looked at
# Only that there is a file name matters. RFC 7578 forbids `filename*`, and some libraries write nothing else
FILE_NAME = re.compile(rb"""filename\*?\s*=\s*(?:"([^"]*)"|([^;\s]*))""", re.IGNORECASE)


@dataclass
class Part:
    """One part of a form."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)

    @property
    def data(self) -> bytes:
        """Its content."""
        return self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)

    @property
    def name(self) -> str:
        """The field's name."""
        found = re.search(
            rb"""[;\s]name\s*=\s*(?:"([^"]*)"|([^;\s]*))""", self.headers.get(b"content-disposition", b"")
        )
        return b"".join(found.groups(b"")).decode(errors="replace") if found else ""

    @property
    def is_file(self) -> bool:
        """By a file name, a type that is no text, or an image's first bytes: curl's `-F image=<a.jpg` has neither."""
        if (named := FILE_NAME.search(self.headers.get(b"content-disposition", b""))) is not None:
            return any(named.groups()) or bool(self.data)  # a browser sends an empty one where no file was chosen
        kind = self.headers.get(b"content-type", b"text/plain").lower()
        known = image_kinds.find_kind(self.data)
        return not kind.startswith(b"text/") or (known is not None and known.reader is not None)


def form_files(body: bytes, content_type: str, most: int) -> list[bytes]:
    """The files of a form, in their order. content_type: of the request. Problem 400, 413 for more than `most`, 422."""
    parts = form_parts(body, content_type, most + FIELDS)
    files = [part for part in parts if part.is_file]
    if len(files) > most:
        many = "more" if len(parts) > most + FIELDS else str(len(files))
        raise Problem(413, f"a request must have at most {most} images, got {many}")
    fields = [part.name for part in parts if not part.is_file and (part.data or part.name == "top_k")]
    if not files:
        got = f"only field {fields[0][:80]}" if fields else "none"
        raise Problem(422, f"a multipart body must have a file, got {got}; send it as image=@photo.jpg")
    if fields:
        hint = "top_k goes into the address: ?top_k=3" if fields[0] == "top_k" else "parameters go into the address"
        raise Problem(422, f"a form must have files only, got field {fields[0][:80]}; {hint}")
    return [part.data for part in files]


def form_parts(body: bytes, content_type: str, most: int) -> list[Part]:
    """All parts, or `most` and one more. Problem 400 where the form is malformed."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Problem(400, "the Content-Type of a multipart form must name its boundary; let the HTTP library write it")
    parts: list[Part] = []
    name, value, ended = bytearray(), bytearray(), False

    def begin() -> None:
        if len(parts) > most:
            raise _Enough
        parts.append(Part())

    def end_header() -> None:
        parts[-1].headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def end() -> None:
        nonlocal ended
        ended = True

    calls: Any = {
        "on_part_begin": begin,
        "on_header_field": lambda data, start, stop: name.extend(data[start:stop]),
        "on_header_value": lambda data, start, stop: value.extend(data[start:stop]),
        "on_header_end": end_header,
        "on_part_data": lambda data, start, stop: parts[-1].pieces.append(data[start:stop]),
        "on_end": end,
    }
    try:
        # without the preamble that some write
        MultipartParser(boundary, calls).write(body[max(0, body.find(b"--" + boundary)) :])
    except _Enough:
        return parts
    except (FormParserError, ValueError) as error:
        raise Problem(400, f"the multipart form is malformed: {error}") from None
    if not ended:
        raise Problem(400, "the multipart form must end with its boundary, and ends too early")
    return parts


class _Enough(Exception):
    """More parts than any request may have."""
