"""Libraries of vector indexes side by side: wheel size, build, file, recall against exact search, milliseconds a query.

    uv venv /tmp/vectors; uv pip install --python /tmp/vectors/bin/python usearch faiss-cpu lancedb
    taskset -c 0 /tmp/vectors/bin/python benchmarks/serving/vector_indexes.py --count 100000

It runs in an environment of its own, for the project depends on the chosen one only. Vectors: --vectors FILE.npy, or
pretended features of a network: 512 numbers, none below 0, of 1,000 classes that overlap. Each approximate index is
asked with growing effort until its recall@10 is 0.99, all in one thread. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

WANTED, NEIGHBOURS, QUERIES = 0.99, 10, 500
EFFORTS = (16, 32, 64, 128, 256, 512, 1024)
DISTRIBUTIONS = {
    "usearch": ("usearch", "numkong"),
    "faiss": ("faiss-cpu",),
    "lancedb": ("lancedb", "pyarrow", "lance-namespace", "lance-namespace-urllib3-client"),
}
Ask = Callable[[np.ndarray], np.ndarray]


def pretended(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Features of classes that overlap: (count, width), each of length 1."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 1, (1000, width)).astype(np.float32)
    values = centres[rng.integers(0, 1000, count)] + rng.normal(0, 1.2, (count, width)).astype(np.float32)
    return normalised(np.maximum(values, 0))


def normalised(values: np.ndarray) -> np.ndarray:
    """Rows of length 1: the inner product is the cosine."""
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def usearch(vectors: np.ndarray, folder: Path, kind: str) -> Iterator[tuple[str, Path, Ask]]:
    """HNSW in float32, float16 or int8."""
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="cos", dtype=kind, connectivity=16, expansion_add=128)
    index.add(np.arange(len(vectors)), vectors, threads=1)
    index.save(str(folder / "index.usearch"))
    for effort in EFFORTS:
        index.expansion_search = effort
        ask: Ask = lambda query: index.search(query, NEIGHBOURS, threads=1).keys  # noqa: E731
        yield f"effort {effort}", folder / "index.usearch", ask


def faiss(vectors: np.ndarray, folder: Path, kind: str) -> Iterator[tuple[str, Path, Ask]]:
    """HNSW, its vectors as they are or in 8 bits; or exact."""
    import faiss as library

    library.omp_set_num_threads(1)
    width, inner = vectors.shape[1], library.METRIC_INNER_PRODUCT
    if kind == "exact":
        index = library.IndexFlatIP(width)
    elif kind == "hnsw":
        index = library.IndexHNSWFlat(width, 16, inner)
    else:
        index = library.IndexHNSWSQ(width, library.ScalarQuantizer.QT_8bit, 16, inner)
    if kind != "exact":
        index.hnsw.efConstruction = 128
    index.train(vectors)
    index.add(vectors)
    library.write_index(index, str(folder / "index.faiss"))
    for effort in EFFORTS if kind != "exact" else (0,):
        if effort:
            index.hnsw.efSearch = effort
        yield f"effort {effort}", folder / "index.faiss", lambda query: index.search(query[None], NEIGHBOURS)[1][0]


def lancedb(vectors: np.ndarray, folder: Path, kind: str) -> Iterator[tuple[str, Path, Ask]]:
    """IVF with HNSW inside, its vectors in 8 bits; the best are ranked anew by the vectors themselves."""
    import lancedb as library
    import pyarrow as pa

    width = vectors.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
    table = library.connect(str(folder)).create_table("v", pa.table({"id": np.arange(len(vectors)), "vector": column}))
    table.create_index(metric="cosine", vector_column_name="vector", index_type=kind, m=16, ef_construction=128)
    for effort in EFFORTS:

        def ask(query: np.ndarray, effort: int = effort) -> np.ndarray:
            found = table.search(query).metric("cosine").nprobes(max(1, effort // 16)).ef(max(effort, 2 * NEIGHBOURS))
            rows = found.refine_factor(2).limit(NEIGHBOURS).select(["id"]).to_arrow()
            return rows["id"].to_numpy()

        yield f"effort {effort}", folder, ask


CONTENDERS: dict[str, tuple[Callable[[np.ndarray, Path, str], Iterator[tuple[str, Path, Ask]]], str]] = {
    "faiss exact": (faiss, "exact"),
    "faiss HNSW float32": (faiss, "hnsw"),
    "faiss HNSW 8 bits": (faiss, "sq8"),
    "usearch HNSW float32": (usearch, "f32"),
    "usearch HNSW float16": (usearch, "f16"),
    "usearch HNSW int8": (usearch, "i8"),
    "lancedb IVF_HNSW_SQ": (lancedb, "IVF_HNSW_SQ"),
}


def installed(names: tuple[str, ...]) -> float:
    """MiB of the files of distributions."""
    files = [file for name in names for file in importlib.metadata.files(name) or ()]
    extra = [Path(sys.prefix).rglob("faiss_cpu.libs/*")] if "faiss-cpu" in names else []
    sizes = {Path(str(file.locate())).resolve() for file in files} | {path for each in extra for path in each}
    return sum(path.stat().st_size for path in sizes if path.exists()) / 2**20


def size(place: Path) -> float:
    """MiB of a file or folder."""
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / 2**20


def measure(name: str, vectors: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """The least effort that reaches the wanted recall, else the most."""
    make, kind = CONTENDERS[name]
    row: dict[str, Any] = {"index": name}
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for effort, place, ask in make(vectors, Path(folder), kind):
            row.setdefault("build_seconds", round(time.perf_counter() - began, 1))
            row.setdefault("file_mib", round(size(place), 1))
            found, times = [], []
            for query in queries:
                since = time.perf_counter()
                found.append(set(np.asarray(ask(query)).tolist()))
                times.append(time.perf_counter() - since)
            hits = sum(len(got & set(row_.tolist())) for got, row_ in zip(found, truth, strict=True))
            p50, p99 = (round(1000 * float(np.percentile(times, q)), 3) for q in (50, 99))
            row |= {"effort": effort, "recall_at_10": round(hits / truth.size, 4), "p50_ms": p50, "p99_ms": p99}
            print(json.dumps(row), file=sys.stderr, flush=True)
            if row["recall_at_10"] >= WANTED:
                break
    return row


def main() -> None:
    """Compare, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="FILE.npy, (count, width)")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    every = pretended(asked.count + QUERIES, 512) if asked.vectors is None else normalised(np.load(asked.vectors))
    rng = np.random.default_rng(1)
    chosen = rng.permutation(len(every))
    queries, vectors = every[chosen[:QUERIES]], every[chosen[QUERIES : QUERIES + asked.count]]
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :NEIGHBOURS]
    rows = [measure(name, vectors, queries, truth) for name in asked.only]
    sizes = {name: round(installed(names), 1) for name, names in DISTRIBUTIONS.items()}
    versions = {names[0]: importlib.metadata.version(names[0]) for names in DISTRIBUTIONS.values()}
    print(json.dumps({"count": len(vectors), "installed_mib": sizes, "versions": versions, "table": rows}))


if __name__ == "__main__":
    main()
