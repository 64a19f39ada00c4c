"""Search by image: recall of the index against exact search, and /v1/search under load beside /v1/embed.

    python benchmarks/serving/search_load.py                                     an index of 100,000 pretended vectors
    python benchmarks/serving/search_load.py --model CHECKPOINT --index INDEX    one of jobs/index_images.py
    python benchmarks/serving/search_load.py --index INDEX --connections         recall only

Recall: of --queries images of the index, each sought among the others: the share of the ten nearest of exact search
that the index finds. Where keys have a folder, a class as a rule, also recall@1 and @5 by that class, exact and by the
index. Load: jobs/deploy_best.py with one replica, and a client on the same cores that posts photographs. Routes take
turns, and medians of the rounds are printed. The last line of stdout is JSON, the rest is on standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT)  # in this folder the name serve is serve.py

import numpy as np  # noqa: E402

from benchmarks.serving.cameras import endpoint, photographs  # noqa: E402
from benchmarks.serving.serve import find_images, write_checkpoint  # noqa: E402
from benchmarks.serving.vector_indexes import pretended  # noqa: E402
from resnet.host.hardware import describe_hardware  # noqa: E402
from resnet.retrieval.pair_verification import recall_at  # noqa: E402
from resnet.retrieval.vector_index import EFFORT_ADD, Row, VectorIndex, unit, write_index  # noqa: E402
from serve.inference.offline_classifier import index_card  # noqa: E402

NEIGHBOURS, AT_ONCE = 10, 4096
ROUTES = {"embed": "/v1/embed", "search": f"/v1/search?k={NEIGHBOURS}"}


def make_index(folder: Path, checkpoint: Path, count: int, thumbnail: bytes, effort: int) -> float:
    """Write an index of pretended features of a checkpoint's network; the seconds that it took."""
    began, vectors = time.monotonic(), pretended(count, 512)

    def batches() -> Iterator[list[Row]]:
        for start in range(0, count, AT_ONCE):
            part = vectors[start : start + AT_ONCE]
            yield [(f"{start + i:06d}.jpg", thumbnail, vector) for i, vector in enumerate(part)]

    card = index_card(str(checkpoint), "pretended", "1").model_copy(update={"width": 512})
    write_index(folder, card, batches(), effort=effort)
    return time.monotonic() - began


def found_by(index: VectorIndex, vectors: np.ndarray, asked: np.ndarray, places: dict[str, int]) -> np.ndarray:
    """The nearest others of some images by the index, (len(asked), NEIGHBOURS) places; -1: fewer were found."""
    found = np.full((len(asked), NEIGHBOURS), -1)
    for row, place in enumerate(asked):
        near = [places[neighbour.key] for neighbour in index.nearest(vectors[place], NEIGHBOURS + 1)]
        others = [other for other in near if other != place][:NEIGHBOURS]
        found[row, : len(others)] = others
    return found


def exact(vectors: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The same by exact search."""
    found = []
    for part in np.array_split(asked, max(1, len(asked) // 256)):
        similar = vectors[part] @ vectors.T
        similar[np.arange(len(part)), part] = -np.inf
        found.append(np.argsort(-similar, axis=1, kind="stable")[:, :NEIGHBOURS])
    return np.concatenate(found)


def recall(index: VectorIndex, queries: int) -> dict[str, Any]:
    """Figures of an index, in percent but for recall_at_10, a share."""
    vectors = unit(np.concatenate(list(index.vectors())))
    keys = index.keys()
    chosen = np.sort(np.random.default_rng(0).permutation(len(keys))[:queries])
    found = found_by(index, vectors, chosen, {key: place for place, key in enumerate(keys)})
    truth = exact(vectors, chosen)
    hits = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True))
    row: dict[str, Any] = {"images": len(keys), "queries": len(chosen), "recall_at_10": hits / truth.size}
    folders = np.array([key.rpartition("/")[0] for key in keys])
    if len(set(folders.tolist())) > 1:
        labels = np.unique(folders, return_inverse=True)[1]
        right = (labels[found] == labels[chosen, None]) & (found >= 0)
        row["by_index"] = {str(k): 100 * float(right[:, :k].any(1).mean()) for k in (1, 5)}
        row["exact_of_all"] = {str(k): value for k, value in recall_at(vectors, labels).items()}
    return row


def load(url: str, images: Path, connections: int, seconds: float) -> dict[str, Any]:
    """One turn of the client."""
    script = Path(__file__).with_name("serve_load.py")
    words = [url, "--images", images, "--connections", connections, "--warm", 2, "--seconds", seconds]
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    asked: argparse.Namespace, checkpoint: Path, index: Path, images: Path, folder: Path
) -> list[dict[str, Any]]:
    """The table of the load: medians of the rounds."""
    words: list[object] = ["--checkpoint", checkpoint, "--index", index, "--threads", asked.threads]
    words += ["--min-replicas", 1, "--max-replicas", 1, "--cpus", asked.threads]
    turns: dict[tuple[int, str], list[dict[str, Any]]] = {}
    with endpoint(words, asked.threads, folder, next(images.glob("*.jpg")).read_bytes()) as url:
        for _ in range(asked.rounds):
            for connections in asked.connections:
                for route, path in ROUTES.items():
                    row = load(url + path, images, connections, asked.seconds)
                    turns.setdefault((connections, route), []).append(row)
                    print(f"{connections} {route:6} {json.dumps(row)}", file=sys.stderr, flush=True)
    table = []
    for (connections, route), rows in turns.items():
        line: dict[str, Any] = {"connections": connections, "route": route}
        line |= {name: round(statistics.median(r[name] for r in rows), 2) for name in ("per_second", "p50", "p99")}
        table.append(line | {"errors": sum(sum(r["errors"].values()) for r in rows)})
    return table


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="checkpoint that answers; an untrained ResNet-18")
    parser.add_argument("--index", type=Path, help="of that checkpoint; without it one is made")
    parser.add_argument("--count", type=int, default=100_000, help="vectors of an index that is made")
    parser.add_argument("--effort", type=int, default=EFFORT_ADD, help="of adding a vector to an index that is made")
    parser.add_argument("--images", type=Path, help="folder of .JPEG files to post; Imagenette's validation images")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--connections", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the replica")
    asked = parser.parse_args()
    told: dict[str, Any] = {"hardware": describe_hardware()}
    with tempfile.TemporaryDirectory(prefix="bench-search-") as name:
        folder, images, index = Path(name), Path(name, "photographs"), asked.index
        checkpoint = asked.model
        if asked.connections or index is None:
            images.mkdir()
            for number, data in enumerate(photographs(find_images(asked.images, folder))):
                (images / f"{number}.jpg").write_bytes(data)
            checkpoint = checkpoint or write_checkpoint("imagenet-resnet18", folder)
        if index is None:
            index = folder / "index"
            thumbnail = (images / "0.jpg").read_bytes()[:4096]
            told["build_seconds"] = make_index(index, checkpoint, asked.count, thumbnail, asked.effort)
        opened = VectorIndex(index)
        told["recall"] = recall(opened, asked.queries)
        opened.close()
        print(json.dumps(told), file=sys.stderr, flush=True)
        if asked.connections:
            told["table"] = measure(asked, checkpoint, index, images, folder)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(asked).items()}
    print(json.dumps(told | {"settings": settings}))


if __name__ == "__main__":
    main()
