"""gs:// against an emulator on the loopback interface: prepared, verified, streamed; a shard that vanishes."""

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.preparation.prepare import verify, write_shards
from pipelines.preparation.sources import Source
from pipelines.shards import row_groups
from pipelines.storage import Folder
from pipelines.stream import rank_batches
from pipelines.stream.augmentation import EpochAugmentation
from pipelines.stream.example_order import Order
from resnet.recipes.recipe_settings import Images

CROPS = Images(size=32, policy="random-resized-crop", area=(0.3, 1), eval_shorter_side=32, mean="per-channel")
# A process of its own: Arrow holds Python's lock while it opens a file, and a server in a thread could not answer.
SERVER = """
import sys
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="images")
server.start()
print(server._api._httpd.server_address[1], flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(scope="module")
def gs() -> Iterator[str]:
    """URI template of a bucket: gs://images/{}?..."""
    pytest.importorskip("gcp_storage_emulator", reason="gcp-storage-emulator is not installed")
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        yield f"gs://anonymous@images/{{}}?endpoint_override=127.0.0.1:{port}&scheme=http&retry_limit_seconds=5"
        server.communicate()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of 40 training and 8 validation JPEGs."""
    out, rng = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    for part, count in (("train", 40), ("val", 8)):
        for i in range(count):
            folder = out / part / f"class{i % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            data = io.BytesIO()
            small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
            small.resize((60, 48), Image.Resampling.BICUBIC).save(data, "JPEG")
            (folder / f"{i}.JPEG").write_bytes(data.getvalue())
    return out


def epoch(uri: str) -> list[Any]:
    """The undecoded batches of an epoch of one rank, as a task of the stream reads them."""
    train = row_groups.open_split(uri, "train")[1]
    part = rank_batches.RankEpoch(EpochAugmentation(train, CROPS, 1, 0), Order(train.rows, 8, 2, seed=1), 0, 0, 1)
    return list(part.tables(0, len(part.windows())))


def test_gs_is_written_verified_streamed_and_a_shard_that_vanishes_is_named(
    tmp_path: Path, folders: Path, gs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = gs.format("a/out")
    there = write_shards(Source(path=str(folders)), out, row_group_size=8, workers=0)
    here = write_shards(Source(path=str(folders)), str(tmp_path / "out"), row_group_size=8, workers=0)
    assert there.fingerprint() == here.fingerprint()
    assert verify(out) == []
    assert write_shards(Source(path=str(folders)), out, row_group_size=8, workers=0) == there, "a no-op"
    batches = epoch(out)
    assert len(batches) == 5
    assert batches == epoch(str(tmp_path / "out"))

    train = row_groups.open_split(out, "train")[1]
    Folder(out).remove(train.files[0])
    monkeypatch.setattr(row_groups, "RETRIES", (0.01, 0.01))
    with pytest.raises(row_groups.UnreadableShard, match=f"shard {train.files[0]} of gs://.* cannot be read"):
        train.read(0)
