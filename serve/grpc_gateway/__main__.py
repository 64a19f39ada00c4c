"""`python -m serve.grpc_gateway URL [--port 8001]` answers gRPC for an endpoint that runs elsewhere, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import threading

from serve.grpc_gateway.gateway import listening_for_grpc

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m serve.grpc_gateway", description=__doc__)
    parser.add_argument("url", help="of the endpoint, e.g. http://127.0.0.1:8000")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--max-bytes", type=int, default=16 * 2**20, help="as the endpoint has it")
    parser.add_argument("--timeout", type=float, default=30.0, help="as the endpoint has it")
    parser.add_argument("--api-key-file", help="as the endpoint has it: keys are asked for before a message is read")
    asked = vars(parser.parse_args())
    with listening_for_grpc(asked.pop("url"), asked.pop("host"), asked.pop("port"), **asked) as port:
        print(f"gRPC on port {port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
