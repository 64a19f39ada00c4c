"""A gRPC server that asks the endpoint over HTTP, by /v2 with binary tensors.

So limits, keys, rates, canaries, the repetition of what a killed replica had, and draining are those of HTTP, and
nothing of them is written twice. Ray Serve's own gRPC (2.60) listens on all interfaces, in each replica too, and has a
message whole in memory before it can ask for a key.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import grpc
import numpy as np
from google.protobuf import json_format

from serve.api.clients import Keys
from serve.api.open_inference_protocol import HEADER_LENGTH
from serve.grpc_gateway.messages import METHODS, SERVICE, messages

AT_ONCE = 64  # calls in progress; more are refused at once
ROOM = 2**16  # bytes of a message beside its images
KEPT = ("authorization", "x-api-key", "x-request-id", "traceparent")  # of a call's metadata, sent on as headers
KINDS = {"TYPE_UINT8": 2, "TYPE_INT64": 9, "TYPE_FP32": 11, "TYPE_STRING": 13}  # of model_config.proto
STATUS = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
# The list of InferTensorContents that holds values of a type, and the type of each in binary
CONTENTS = {"FP32": ("fp32_contents", "<f4"), "UINT8": ("uint_contents", "u1"), "BYTES": ("bytes_contents", "")}


class Refusal(Exception):
    """A call that is answered by an error."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class Endpoint:
    """The endpoint over HTTP: a connection for each thread, kept open. timeout: seconds for an answer."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._timeout = parts.hostname or "", parts.port, timeout
        self._local = threading.local()

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[http.client.HTTPMessage, bytes]:
        """Headers and content of an answer. Refusal for any other than a 200."""
        for fresh in (False, True):  # a connection that was kept may have been closed meanwhile
            kept = None if fresh else getattr(self._local, "connection", None)
            connection = kept or http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            self._local.connection = connection
            try:
                connection.request(method, path, body or None, dict(headers or {}))
                answer = connection.getresponse()
                content = answer.read()
            except TimeoutError:
                connection.close()
                raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, "the endpoint did not answer in time") from None
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if kept is None:
                    raise Refusal(grpc.StatusCode.UNAVAILABLE, f"the endpoint does not answer: {error}") from None
                continue
            if answer.status != 200:
                raise Refusal(STATUS.get(answer.status, grpc.StatusCode.INTERNAL), _detail(content))
            return answer.headers, content
        raise AssertionError("the second connection is fresh")


def _detail(content: bytes) -> str:
    try:
        return str(json.loads(content)["detail"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")


class Service:
    """The methods of the service, each from a request to a response."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def handle(self, method: str, request: Any, metadata: Mapping[str, str]) -> Any:
        """The response. Refusal."""
        return getattr(self, f"_{method}")(request, {name: metadata[name] for name in KEPT if name in metadata})

    def _told(self, kind: str, path: str, headers: Mapping[str, str], method: str = "GET") -> Any:
        """A response whose fields are those of the JSON at a path."""
        content = json.loads(self._endpoint.ask(method, path, headers=headers)[1])
        found = {"models": content} if isinstance(content, list) else content
        return json_format.ParseDict(found, messages()[kind](), ignore_unknown_fields=True)

    def _ServerLive(self, _: Any, headers: Mapping[str, str]) -> Any:
        return self._told("ServerLiveResponse", "/v2/health/live", headers)

    def _ServerReady(self, _: Any, headers: Mapping[str, str]) -> Any:
        return self._told("ServerReadyResponse", "/v2/health/ready", headers)

    def _ModelReady(self, request: Any, headers: Mapping[str, str]) -> Any:
        try:
            return self._told("ModelReadyResponse", f"{_path(request.name, request.version)}/ready", headers)
        except Refusal as refusal:
            if refusal.code != grpc.StatusCode.NOT_FOUND:
                raise
            return messages()["ModelReadyResponse"](ready=False)

    def _ServerMetadata(self, _: Any, headers: Mapping[str, str]) -> Any:
        return self._told("ServerMetadataResponse", "/v2", headers)

    def _ModelMetadata(self, request: Any, headers: Mapping[str, str]) -> Any:
        return self._told("ModelMetadataResponse", _path(request.name, request.version), headers)

    def _ModelStatistics(self, request: Any, headers: Mapping[str, str]) -> Any:
        path = f"{_path(request.name, request.version)}/stats" if request.name else "/v2/models/stats"
        return self._told("ModelStatisticsResponse", path, headers)

    def _RepositoryIndex(self, _: Any, headers: Mapping[str, str]) -> Any:
        return self._told("RepositoryIndexResponse", "/v2/repository/index", headers, "POST")

    def _ModelConfig(self, request: Any, headers: Mapping[str, str]) -> Any:
        content = json.loads(
            self._endpoint.ask("GET", f"{_path(request.name, request.version)}/config", b"", headers)[1]
        )
        for tensor in (*content["input"], *content["output"]):
            tensor["data_type"] = KINDS[tensor["data_type"]]
        made = messages()["ModelConfigResponse"]()
        return json_format.ParseDict({"config": content}, made, ignore_unknown_fields=True)

    def _ModelInfer(self, request: Any, headers: Mapping[str, str]) -> Any:
        raw = _inputs(request)
        outputs = [{"name": o.name, "parameters": _parameters(o) | {"binary_data": True}} for o in request.outputs]
        inputs = [
            {
                "name": t.name,
                "datatype": t.datatype,
                "shape": list(t.shape),
                "parameters": {"binary_data_size": len(part)},
            }
            for t, part in zip(request.inputs, raw, strict=True)
        ]
        asked = {"inputs": inputs, "outputs": outputs, "parameters": {"binary_data_output": True}}
        head = json.dumps(asked | ({"id": request.id} if request.id else {})).encode()
        sent = {**headers, HEADER_LENGTH: str(len(head)), "Content-Type": "application/octet-stream"}
        path = f"{_path(request.model_name, request.model_version)}/infer"
        answered, content = self._endpoint.ask("POST", path, b"".join([head, *raw]), sent)
        length = int(answered[HEADER_LENGTH])
        told, rest = json.loads(content[:length]), memoryview(content)[length:]
        response = json_format.ParseDict(told, messages()["ModelInferResponse"](), ignore_unknown_fields=True)
        for output in told["outputs"]:
            size = output["parameters"]["binary_data_size"]
            response.raw_output_contents.append(bytes(rest[:size]))
            rest = rest[size:]
        return response


def _path(name: str, version: str) -> str:
    return f"/v2/models/{quote(name, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _parameters(owner: Any) -> dict[str, Any]:
    """The parameters of a request or an output as JSON has them."""
    return {p.key: getattr(p.value, p.value.ListFields()[0][0].name) for p in owner.parameters if p.value.ListFields()}


def _inputs(request: Any) -> list[bytes]:
    """The bytes of each input, given raw or as values. Refusal where it is neither."""
    if request.raw_input_contents:
        if len(request.raw_input_contents) != len(request.inputs):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "raw_input_contents must have one entry for each input")
        return list(request.raw_input_contents)
    raw = []
    for tensor in request.inputs:
        if tensor.datatype not in CONTENTS:
            allowed = ", ".join(CONTENTS)
            detail = f"input {tensor.name[:80]} must be {allowed}, got {tensor.datatype[:40]}"
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, detail)
        field, kind = CONTENTS[tensor.datatype]
        values = getattr(tensor.contents, field)
        if not kind:
            raw.append(b"".join(struct.pack("<I", len(value)) + value for value in values))
            continue
        if tensor.datatype == "UINT8" and any(value > 255 for value in values):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"input {tensor.name[:80]} must have values from 0 to 255")
        raw.append(np.array(values, np.dtype(kind)).tobytes())
    return raw


class KeyGate(grpc.ServerInterceptor):
    """Asks for the key where the endpoint does, before a call's message is read."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """gRPC's call."""
        given = dict(handler_call_details.invocation_metadata)
        scheme, _, token = given.get("authorization", "").partition(" ")
        key = given.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        open_to_all = handler_call_details.method.endswith(("/ServerLive", "/ServerReady"))
        if open_to_all or (key and self._keys.client(key) is not None):
            return continuation(handler_call_details)
        detail = "the key is not known" if key else "a key is needed: metadata authorization: Bearer KEY, or x-api-key"

        def refuse(_: Any, context: grpc.ServicerContext) -> Any:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, detail)

        return grpc.unary_unary_rpc_method_handler(refuse)


@contextlib.contextmanager
def listening_for_grpc(
    url: str, host: str, port: int, *, max_bytes: int, timeout: float, api_key_file: str | None = None
) -> Iterator[int]:
    """The gateway to the endpoint at a URL, while the block runs; gives its port. RuntimeError: the port is taken.

    At the end calls in progress have `timeout` seconds; new ones are refused.
    """
    service = Service(Endpoint(url, 2 * timeout + 5))  # its body and its answer have a timeout each
    interceptors = []
    if api_key_file is not None:
        interceptors.append(KeyGate(Keys(api_key_file, lambda _: None)))
    server = grpc.server(
        ThreadPoolExecutor(AT_ONCE, thread_name_prefix="grpc"),
        interceptors=interceptors,
        maximum_concurrent_rpcs=AT_ONCE,
        options=(
            ("grpc.max_receive_message_length", max_bytes + ROOM),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ),
    )
    handlers = {method: _handler(service, method) for method in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    taken = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    server.start()
    try:
        yield taken
    finally:
        server.stop(timeout).wait()


def _handler(service: Service, method: str) -> grpc.RpcMethodHandler:
    def answer(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            metadata = {name: text for name, text in context.invocation_metadata() if isinstance(text, str)}
            return service.handle(method, request, metadata)
        except Refusal as refusal:
            context.abort(refusal.code, refusal.detail)

    kinds = messages()
    return grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=kinds[f"{method}Request"].FromString,
        response_serializer=kinds[f"{method}Response"].SerializeToString,
    )
