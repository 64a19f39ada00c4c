"""Hosts that are asked without a proxy: this machine's own, where http_proxy is set."""

from __future__ import annotations

import os

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def ask_directly(*hosts: str) -> None:
    """Name the loopback interface and these hosts in no_proxy, for this process and those that it starts.

    urllib, requests, aiohttp, gRPC and curl send requests to 127.0.0.1 too to the proxy of http_proxy, which is another
    machine and answers for its own 127.0.0.1, or not at all.
    """
    if not any(os.environ.get(name) for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY")):
        return
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    known = [host.strip() for host in given.split(",") if host.strip()]
    if "*" in known:
        return
    known += [host for host in dict.fromkeys((*LOOPBACK, *hosts)) if host not in known]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(known)
