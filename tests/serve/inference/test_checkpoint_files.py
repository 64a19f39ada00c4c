"""Checkpoints that are served from elsewhere: buckets and web servers on the loopback interface."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from serve.inference import checkpoint_files
from serve.inference.classifier import Classifier
from tests.s3_server import options_of, s3_server
from tests.serve.conftest import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("remote") / "best", "cifar10-resnet8-A", 32, 10, seed=1)


@pytest.fixture(scope="module")
def s3(checkpoint: Path) -> Iterator[str]:
    """URI of a checkpoint in a bucket of moto's S3, {} stands for the folder."""
    with s3_server("models") as address:
        system, _ = fs.FileSystem.from_uri(f"s3://models?{options_of(address)}")
        for file in checkpoint.iterdir():
            with system.open_output_stream(f"models/best/{file.name}") as stream:
                stream.write(file.read_bytes())
        yield f"s3://models/{{}}?{options_of(address)}"


class Quiet(SimpleHTTPRequestHandler):
    """A web server without a line for each request, and without listings."""

    def list_directory(self, path: object) -> None:
        self.send_error(403)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def web(checkpoint: Path) -> Iterator[str]:
    """URL of the folder that holds the checkpoint."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(checkpoint.parent)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_checkpoint_in_a_bucket_or_on_the_web_answers_as_the_local_one(checkpoint: Path, s3: str, web: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = Classifier(str(checkpoint), precision="float32").run_batch([image])[0].probabilities
    for place in (s3.format("best"), f"{web}/best", f"{web}/best/", checkpoint.as_uri()):
        found = Classifier(place, precision="float32").run_batch([image])[0].probabilities
        np.testing.assert_array_equal(found, expected, err_msg=place)


def test_a_place_without_a_checkpoint_is_one_sentence_before_ray_starts(s3: str, web: str) -> None:
    for place in (s3.format("worst"), f"{web}/worst"):
        with pytest.raises(ValueError, match=r"must be a folder with model\.safetensors, got .*/worst$"):
            checkpoint_files.require(place)
        with pytest.raises(ValueError, match=r"a checkpoint must hold model\.safetensors"):
            Classifier(place)
    checkpoint_files.require(s3.format("best"))
    checkpoint_files.require("http://127.0.0.1:9/best")  # a node may reach it where this machine does not
    with pytest.raises(ValueError, match=r"got odd://bucket/x: .*odd"):
        checkpoint_files.require("odd://bucket/x")


def test_int8_is_read_from_a_bucket_too(s3: str) -> None:
    from serve.inference.engines import onnx_int8

    with pytest.raises(ValueError, match=r"precision int8 needs int8\.onnx beside the checkpoint, got none in s3://"):
        onnx_int8.read_int8(s3.format("best"), 1)
