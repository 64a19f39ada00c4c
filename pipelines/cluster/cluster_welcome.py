"""Is a Ray at an address, and does it ask for a token? Asked by gRPC alone, before Ray is imported."""

from __future__ import annotations

import enum
import os

# A method of Ray's head that changes nothing
CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


class Welcome(enum.Enum):
    """The answer of a cluster's head to a process that has a token, or none."""

    OPEN = "it asks for no token"
    BY_TOKEN = "it takes this token"
    NOT = "it asks for another token"
    NO_RAY = "it is no Ray"
    UNKNOWN = "it cannot be asked"


def welcome(address: str, token: str | None, patience: float = 5.0) -> Welcome:
    """Ask the head at HOST:PORT whether it is there, without Ray: its import settles whether a token is used."""
    try:
        import grpc
    except ImportError:
        return Welcome.UNKNOWN
    if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
        return Welcome.UNKNOWN
    codes = grpc.StatusCode
    no_ray = (codes.UNAVAILABLE, codes.UNIMPLEMENTED, codes.DEADLINE_EXCEEDED)
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        ask = channel.unary_unary(CHECK_ALIVE)
        for given in (None, token) if token else (None,):
            metadata = (("authorization", f"Bearer {given}"),) if given else None
            try:
                ask(b"", timeout=patience, metadata=metadata)
            except grpc.RpcError as error:
                code = error.code()  # pyright: ignore[reportAttributeAccessIssue]
                if code is not codes.UNAUTHENTICATED:
                    return Welcome.NO_RAY if code in no_ray else Welcome.UNKNOWN
            else:
                return Welcome.BY_TOKEN if given else Welcome.OPEN
    return Welcome.NOT
