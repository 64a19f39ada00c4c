"""LitServe in serve.py: serve_litserve.py CHECKPOINT --batch N --port PORT, by .venv-peers' Python."""

# No `from __future__ import annotations`: LitServe reads decode_request's annotation at run time.
import argparse
import sys
from pathlib import Path
from typing import Annotated, Any

import litserve as ls
from fastapi import Depends, Request

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

WAIT = 0.002  # seconds that a batch may wait to fill


async def body(request: Request) -> bytes:
    """The image's bytes: LitServe itself would read JSON or a form."""
    return await request.body()


class Api(ls.LitAPI):
    """Decodes and classifies in the worker; LitServe's own process answers."""

    def __init__(self, checkpoint: str, **options: Any) -> None:
        super().__init__(**options)
        self.checkpoint = checkpoint

    def setup(self, device: str) -> None:
        """Once in the worker."""
        from serve.inference.classifier import Classifier

        self.model = Classifier(self.checkpoint)

    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> Any:
        """As it is."""
        return request

    def batch(self, inputs: Any) -> Any:
        """As they are."""
        return list(inputs)

    def predict(self, x: Any) -> Any:
        """A batch of encoded images."""
        return self.model.run_batch([self.model.crop(data) for data in x])

    def unbatch(self, output: Any) -> Any:
        """One answer an image."""
        return list(output)

    def encode_response(self, output: Any) -> Any:
        """The answer of every contender."""
        from serve_contenders import top5

        return top5(self.model, output)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--batch", type=int, required=True, help="most images of one pass")
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args()
    api = Api(asked.checkpoint, max_batch_size=asked.batch, batch_timeout=WAIT)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=asked.cores)
    server.run(host="127.0.0.1", port=asked.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
