"""The command as a person runs it: one JSON line, one sentence for a mistake, Ctrl-C that can be gone on from."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "jobs" / "write_shards.py"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True)


def write_folders(root: Path, images: int = 6, side: int = 24) -> Path:
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(images):
                pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / label / f"{split}{i}.jpg")
    return root


def outcome(process: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("\n") == 1, "one line of JSON and nothing else"
    return json.loads(process.stdout)


def test_write_then_nothing_to_do_then_verify_then_a_flipped_bit(tmp_path: Path) -> None:
    source, out = write_folders(tmp_path / "images"), tmp_path / "out"
    (source / "train" / "cat" / "broken.jpg").write_bytes(b"no image")
    command = ("--source.path", source, "--out", out, "--max-rejected", "0.1")
    first = outcome(run(*command))
    assert first["examples"] == {"train": 12, "val": 12}
    assert (first["out"], first["classes"], first["rejected"], first["shards"]) == (str(out), 2, 1, 2)
    again = outcome(run(*command))
    assert again | {"seconds": 0} == first | {"seconds": 0}
    assert outcome(run("--out", out, "--verify"))["bytes"] == sum(p.stat().st_size for p in out.glob("*.parquet"))
    shard = out / "val-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes().replace(b"\xff\xd8", b"\xff\xd9", 1))
    found = run("--out", out, "--verify")
    assert (found.returncode, found.stdout) == (2, "")
    assert "1 problems in" in found.stderr
    assert shard.name in found.stderr


def test_reencoding_warns_where_the_paper_needs_more_pixels(tmp_path: Path) -> None:
    source = write_folders(tmp_path / "images", images=2)
    process = run("--source.path", source, "--out", tmp_path / "out", "--shorter-side", "16")
    assert outcome(process)["reencoded"] == 8
    assert "scale jitter, to shorter sides of 480, enlarges images of 16" in process.stderr
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["encoding"] == {"shorter_side": 16, "quality": 90}


def test_a_mistake_is_one_sentence_and_exit_status_2(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for words, sentence in [
        (("--source.path", tmp_path / "empty", "--out", tmp_path / "out"), "it holds nothing"),
        (("--source.path", tmp_path / "none", "--out", tmp_path / "out"), "must exist"),
        (("--out", tmp_path / "out", "--source.path", tmp_path, "--workers", "-1"), "workers"),
        (("--out", tmp_path / "out", "--source.path", tmp_path, "--quality", "80"), "must be given together"),
        (("--out", tmp_path / "out", "--source.path", tmp_path, "--verify"), "source must be left out with verify"),
        (("--out", tmp_path / "empty", "--verify"), "holds no shards"),
        (("--source.path", tmp_path), "--out"),
        (("--out", tmp_path / "out", "--source.kind", "imagenet"), "imagenet"),
        (("--out", tmp_path / "out", "--shorter", "3"), "--shorter"),
    ]:
        process = run(*words)
        assert process.returncode == 2, (words, process.stderr)
        assert process.stdout == ""
        assert sentence in process.stderr
        assert "Traceback" not in process.stderr
        assert process.stderr.count("\n") == 1, process.stderr
    assert not (tmp_path / "out").exists()


def test_help_teaches_by_examples() -> None:
    process = run("--help")
    assert process.returncode == 0
    for words in ("--source.path DIR --out SHARDS", "ILSVRC2012_img_train.tar", "--verify", "--shorter-side", "s3://"):
        assert words in process.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(tmp_path: Path) -> None:
    source, out = write_folders(tmp_path / "images", images=100, side=600), tmp_path / "out"
    command = [sys.executable, SCRIPT, "--source.path", source, "--out", out, "--row-group-size", "8", "--workers", "0"]
    # A shell has Ctrl-C ignored in what it starts in the background, and so in the tests that run there.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(out.glob(".writing/*.parquet.json")):
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (130, ""), stderr
    assert "shards are finished; the same command goes on with the rest" in stderr
    assert "Traceback" not in stderr
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*.parquet")}
    assert 0 < len(finished) < 16
    assert outcome(run(*map(str, command[2:])))["examples"] == {"train": 200, "val": 200}
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


def test_the_digits_become_shards_in_one_command(tmp_path: Path) -> None:
    row = outcome(run("--source.kind", "digits", "--out", tmp_path / "out"))
    assert (row["examples"], row["classes"], row["rejected"]) == ({"train": 1437, "val": 360}, 10, 0)
    from pyarrow import parquet as pq

    table = pq.read_table(next((tmp_path / "out").glob("train-00000-*"))).to_pydict()
    assert np.asarray(Image.open(io.BytesIO(table["image"][0]))).shape == (32, 32, 3)
    assert table["key"][0].startswith("digits/")
