"""Memory over 20 epochs of the stream: this process, Ray's processes and the object store stay where they are.

    python benchmarks/data/memory.py --out results       --epochs 20; needs what benchmarks/data/ingest.py has prepared

Each epoch goes through all shards, of 2,000 images re-encoded to a shorter side of 256, with two CPUs. Resident memory
is the proportional share (PSS) of this process and of everything that it started, so that shared pages count once. The
last line of stdout is JSON: MiB after each epoch, and the slope over the second half in MiB an epoch.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import ingest
import numpy as np

ROOT = Path(__file__).resolve().parents[2]


def pss() -> float:
    """MiB that this process and its children hold, shared pages counted in part."""
    import psutil

    me, total = psutil.Process(), 0
    for process in [me, *me.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, AttributeError):
            continue
    return total / 2**20


def epochs(uri: str, count: int, decode: Any, address: str) -> list[dict[str, float]]:
    """Memory after each epoch. address: of Ray."""
    from pipelines.cluster import free_cpus
    from pipelines.stream import streamed

    split, order = ingest.opened(uri)
    rows = []
    for epoch in range(count):
        begin, images, store = time.perf_counter(), 0, 0.0
        place = (epoch, 0, 0, 1, free_cpus.TaskBudget.of(2), decode, 2)
        for batch in streamed.streamed_batches(split, order, ingest.recipe_images(), *place):
            images += len(batch.labels)
            store = max(store, ingest.store_used(address))
        seconds = time.perf_counter() - begin
        row = {"epoch": epoch, "pss_mib": pss(), "store_peak_mib": store, "images_per_second": images / seconds}
        rows.append({name: round(value, 1) for name, value in row.items()})
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def figure(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Memory by epoch, a line for each way to decode."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(figsize=(6, 3.5))
    for decode, rows in found.items():
        axes.plot([r["epoch"] for r in rows], [r["pss_mib"] for r in rows], marker="o", label=f"processes, {decode}")
        axes.plot([r["epoch"] for r in rows], [r["store_peak_mib"] for r in rows], ls="--", label=f"store, {decode}")
    axes.set(xlabel="epoch", ylabel="MiB", ylim=(0, None))
    axes.legend(fontsize="small")
    plt.savefig(path, dpi=120, bbox_inches="tight")


def main() -> int:
    """Run, plot, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT / "runs" / "ingest", help="of benchmarks/data/ingest.py")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--decode", nargs="+", choices=["worker", "tasks"], default=["worker", "tasks"])
    parser.add_argument("--out", type=Path, required=True, help="folder for stream-memory.json and .png")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    from pipelines.cluster import private_ray

    # Once: Ray reads the token of a cluster once in a process.
    address = private_ray.start_private(num_cpus=2, object_store_memory=2**30).address_info["gcs_address"]
    found = {decode: epochs(str(options.data / "256"), options.epochs, decode, address) for decode in options.decode}
    figure(found, options.out / "stream-memory.png")
    from pipelines.provenance import git_commit
    from resnet.host.hardware import describe_hardware

    half = {name: [row["pss_mib"] for row in rows][len(rows) // 2 :] for name, rows in found.items()}
    slopes = {n: round(float(np.polyfit(range(len(v)), v, 1)[0]), 2) for n, v in half.items() if len(v) > 1}
    summary = {
        "slope_mib_an_epoch": slopes,
        "epochs": found,
        "command": "python benchmarks/data/memory.py " + " ".join(sys.argv[1:]),
        "commit": git_commit(),
        "hardware": describe_hardware(),
    }
    (options.out / "stream-memory.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
