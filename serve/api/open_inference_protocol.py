"""The Open Inference Protocol, version 2, with its binary tensor extension: bytes to tensors and back.

Inputs, one of the two: `image`, BYTES (N): encoded images, or UINT8 (N, bytes): the same, filled up with zeros to one
length; `pixels`, FP32 or UINT8 (N, 3, size, size): the evaluation's crop, RGB in [0, 255] (the model subtracts its own
mean). Outputs: `probabilities`, FP32 (N, K), or with the classification
extension BYTES (N, k) of `probability:class id:name`; `embedding`, FP32 (N, C).

Source: the KServe project's "Predict Protocol - Version 2" and Triton's binary data and classification extensions.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from resnet.frozen import sentence
from serve.inference.classifier import Classifier
from serve.problems import Problem

OUTPUTS = ("probabilities", "embedding")
NUMBERS = {"f": ("FP32", "<f4"), "i": ("INT64", "<i8"), "u": ("UINT8", "u1")}  # by the kind of an array
HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_LENGTH = 1 << 30  # a shape above this is wrong, whatever follows
PIXELS = {"FP32": "<f4", "UINT8": "u1"}


class Message(BaseModel):
    """A part of a request. A member that is null is one that is absent: clients write their own models so."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class Parameters(Message):
    """The extensions' parameters of a tensor or a request; others are ignored, as the protocol says."""

    binary_data_size: Annotated[int | None, Field(ge=0)] = None
    binary_data: bool | None = None
    binary_data_output: bool = False
    classification: Annotated[int, Field(ge=0)] = 0


class Tensor(Message):
    """One input of a request."""

    name: str
    shape: Annotated[list[Annotated[int, Field(ge=0, le=MAX_LENGTH)]], Field(min_length=1, max_length=8)]
    datatype: str
    parameters: Parameters = Parameters()
    data: Any = None


class Wanted(Message):
    """One output that a request asks for."""

    name: str
    parameters: Parameters = Parameters()


class RequestHeader(Message):
    """The JSON part of a request."""

    id: Annotated[str | None, Field(max_length=256)] = None
    inputs: Annotated[list[Tensor], Field(min_length=1, max_length=8)]
    outputs: Annotated[list[Wanted], Field(max_length=8)] = []
    parameters: Parameters = Parameters()


class OutputTensor(BaseModel):
    """One output of an answer. data: null where it lies behind the JSON, parameters.binary_data_size bytes of it."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferenceAnswer(BaseModel):
    """The JSON part of an answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


@dataclass(frozen=True)
class InferRequest:
    """A parsed request. images: encoded ones, or (size, size, 3) floats in [0, 255]."""

    id: str | None
    images: list[bytes] | list[np.ndarray]
    wanted: list[Wanted]


def parse_request(body: bytes, header_length: str | None, size: int, outputs: Sequence[str] = OUTPUTS) -> InferRequest:
    """A request's body. header_length: of the JSON part, where tensors follow it; size: of `pixels`; outputs: names
    of those that there are. Problem 400."""
    if header_length is not None and not (header_length.isascii() and header_length.isdigit()):
        raise Problem(400, f"{HEADER_LENGTH} must be a number, got {header_length[:40]!r}")
    length = len(body) if header_length is None else int(header_length[:18])
    if length > len(body):
        raise Problem(400, f"{HEADER_LENGTH} must be at most the body's {len(body)} bytes, got {length}")
    try:
        header = RequestHeader.model_validate_json(body[:length])
    except ValidationError as error:
        hint = f"; tensors behind it need the header {HEADER_LENGTH}" if header_length is None and b"\0" in body else ""
        raise Problem(400, f"the request's JSON: {sentence(error)[:300]}{hint}") from None
    contents = _split(header.inputs, memoryview(body)[length:])
    chosen = [(t, c) for t, c in zip(header.inputs, contents, strict=True) if t.name in ("image", "pixels")]
    if len(chosen) != 1 or len(header.inputs) != 1:
        raise Problem(400, f"inputs must be one of image and pixels, got {', '.join(t.name for t in header.inputs)}")
    tensor, content = chosen[0]
    images = _encoded(tensor, content) if tensor.name == "image" else _pixels(tensor, content, size)
    return InferRequest(header.id, images, _wanted(header, outputs))


def _wanted(header: RequestHeader, outputs: Sequence[str]) -> list[Wanted]:
    """The outputs, all if none is named, each with its own choice of binary or the request's."""
    default = header.parameters.binary_data_output
    wanted = header.outputs or [Wanted(name=name) for name in outputs]
    for output in wanted:
        if output.name not in outputs:
            raise Problem(400, f"outputs must be among {', '.join(outputs)}, got {output.name[:80]}")
        if output.parameters.binary_data is None:
            output.parameters = output.parameters.model_copy(update={"binary_data": default})
    return wanted


def _split(inputs: list[Tensor], tail: memoryview) -> list[memoryview | None]:
    """Each input's share of the bytes behind the JSON; None for one with `data`."""
    parts: list[memoryview | None] = []
    for tensor in inputs:
        size = tensor.parameters.binary_data_size
        if (size is None) == (tensor.data is None):
            raise Problem(400, f"input {tensor.name[:80]} must have either data or binary_data_size")
        if size is not None and size > len(tail):
            raise Problem(400, f"input {tensor.name[:80]} must have {size} bytes behind the JSON, got {len(tail)}")
        parts.append(None if size is None else tail[:size])
        tail = tail if size is None else tail[size:]
    if len(tail):
        raise Problem(400, f"each byte behind the JSON must be of an input's binary_data_size, got {len(tail)} more")
    return parts


def _encoded(tensor: Tensor, content: memoryview | None) -> list[bytes]:
    """The elements of a BYTES tensor: each after its length (4 bytes, little endian), or base64 in JSON."""
    if tensor.datatype == "UINT8":
        return _padded(tensor, content)
    if tensor.datatype != "BYTES":
        raise Problem(400, f"input image must be BYTES or UINT8, got {tensor.datatype[:40]}")
    elements = _base64(tensor.data) if content is None else _prefixed(content)
    if len(elements) != math.prod(tensor.shape) or not elements:
        count = math.prod(tensor.shape)
        raise Problem(
            400, f"input image must have {max(1, count)} elements for shape {tensor.shape}, got {len(elements)}"
        )
    return elements


def _padded(tensor: Tensor, content: memoryview | None) -> list[bytes]:
    """The rows of a UINT8 tensor, (bytes) for one image or (N, bytes); zeros behind an image are no part of it."""
    if not 1 <= len(tensor.shape) <= 2 or not math.prod(tensor.shape):
        raise Problem(400, f"input image of UINT8 must have shape (bytes) or (N, bytes), got {tuple(tensor.shape)}")
    flat = _numbers(tensor, content, np.dtype("u1"), "image")
    return [row.tobytes() for row in flat.reshape(-1, tensor.shape[-1])]


def _numbers(tensor: Tensor, content: memoryview | None, kind: np.dtype, name: str) -> np.ndarray:
    """All values of a numeric tensor, flat."""
    count = math.prod(tensor.shape)
    try:
        if content is not None:
            flat = np.frombuffer(content, kind)
        else:
            wide = np.asarray(tensor.data, np.float64).ravel()
            with np.errstate(all="ignore"):  # what does not fit is found below
                flat = wide.astype(kind)
            if kind == np.uint8 and not np.array_equal(flat, wide):
                raise ValueError
        if flat.size != count:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        what = "whole numbers from 0 to 255" if kind == np.uint8 else "numbers of 32 bits"
        raise Problem(400, f"input {name} must have {count} {what}") from None
    return flat


def _prefixed(content: memoryview) -> list[bytes]:
    elements, at = [], 0
    while at < len(content):
        if at + 4 > len(content):
            raise Problem(400, "input image ends inside the length of an element")
        (length,) = struct.unpack_from("<I", content, at)
        at += 4
        if at + length > len(content):
            raise Problem(400, f"input image: an element must have {length} bytes, got {len(content) - at}")
        elements.append(bytes(content[at : at + length]))
        at += length
    return elements


def _base64(data: Any) -> list[bytes]:
    try:
        return [base64.b64decode(text, validate=True) for text in np.asarray(data).ravel().tolist()]
    except (TypeError, ValueError, binascii.Error):
        raise Problem(400, "input image: BYTES in JSON must be base64 strings; or use binary tensors") from None


def _pixels(tensor: Tensor, content: memoryview | None, size: int) -> list[np.ndarray]:
    """The images of an FP32 or UINT8 tensor, (size, size, 3) each."""
    shape = tuple(tensor.shape)
    if tensor.datatype not in PIXELS or len(shape) != 4 or shape[1:] != (3, size, size) or shape[0] < 1:
        got = f"{tensor.datatype[:40]} {shape}"
        raise Problem(400, f"input pixels must be FP32 or UINT8 (N, 3, {size}, {size}), got {got}")
    values = _numbers(tensor, content, np.dtype(PIXELS[tensor.datatype]), "pixels").reshape(shape)
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 255):
        raise Problem(400, "input pixels must be numbers from 0 to 255: RGB, before any mean is subtracted")
    return list(np.ascontiguousarray(values.transpose(0, 2, 3, 1)))


def encode(
    request: InferRequest, outputs: dict[str, np.ndarray], model: Classifier, name: str, version: str
) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers. outputs: (N, ...) by name."""
    rows: list[dict[str, Any]] = []
    tail: list[bytes] = []
    for wanted in request.wanted:
        values, count = outputs[wanted.name], wanted.parameters.classification
        labels = _labels(values, count, model) if count and wanted.name == "probabilities" else None
        shape = list(values.shape) if labels is None else [len(values), min(count, values.shape[1])]
        kind, stored = NUMBERS[values.dtype.kind]
        row: dict[str, Any] = {"name": wanted.name, "datatype": "BYTES" if labels else kind, "shape": shape}
        if wanted.parameters.binary_data:
            raw = values.astype(stored).tobytes() if labels is None else _with_lengths(labels)
            row["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            row["data"] = values.ravel().tolist() if labels is None else labels
        rows.append(row)
    answer = {"model_name": name, "model_version": version, "outputs": rows}
    if request.id is not None:
        answer["id"] = request.id
    header = json.dumps(answer).encode()
    if not tail:
        return header, {"Content-Type": "application/json"}
    return b"".join([header, *tail]), {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}


def _labels(probabilities: np.ndarray, count: int, model: Classifier) -> list[str]:
    """Triton's classification strings, `value:index:label`, row after row."""
    best = (model.best(row, count) for row in probabilities)
    return [f"{p.probability:.6f}:{p.image_class.id}:{p.image_class.name}" for row in best for p in row]


def _with_lengths(labels: list[str]) -> bytes:
    return b"".join(struct.pack("<I", len(raw)) + raw for raw in (label.encode() for label in labels))
