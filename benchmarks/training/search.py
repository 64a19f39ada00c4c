#!/usr/bin/env python3
"""Claim: a search of nine settings ends within the seeds' spread of the full grid's winner, at half of its epochs.

    python benchmarks/training/search.py --data CIFAR --work WORK --out results/search.json

Nine settings of ResNet-8 (three lr, three weight decays), three epochs of CIFAR-10, judged by 5,000 held-out training
images, once all in full and once by each of --schedulers, with --repeats seeds. A setting that is trained in full has
the same error in the grid, so the gap is the grid's error of the chosen setting minus that of its winner; the spread is
the winner's standard deviation over the seeds. It goes on where it was stopped. The last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pipelines import provenance  # noqa: E402
from resnet.host.hardware import describe_hardware  # noqa: E402

Setting = tuple[float, float]


def searched(scheduler: str, seed: int, words: argparse.Namespace) -> dict[str, Any]:
    """Outcome of one search, or of an earlier call's."""
    kept = Path(words.work, f"{scheduler}.s{seed}.json")
    if kept.exists():
        return json.loads(kept.read_text())
    job = [sys.executable, str(ROOT / "jobs" / "search_recipe.py"), words.network, "--data.path", words.data]
    job += ["--sampler", "grid", "--points", str(words.points), "--recipe.epochs", str(words.epochs)]
    job += ["--scheduler", scheduler, "--seed", str(seed), "--storage", str(Path(words.work, f"{scheduler}.s{seed}"))]
    done = subprocess.run(
        job, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"RESNET_HOME": str(Path(words.work))}
    )
    found = json.loads(done.stdout.splitlines()[-1])
    kept.write_text(json.dumps(found))
    return found


def setting_of(tried: dict[str, Any]) -> Setting:
    """lr and weight decay, as a key."""
    return float(f"{tried['lr']:.4g}"), float(f"{tried['weight_decay']:.4g}")


def compared(grids: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    """A scheduler beside the full grid, seed by seed."""
    errors = [{setting_of(t): t["error"] for t in grid["tried"]} for grid in grids]
    rows = []
    for grid, other, mine in zip(grids, others, errors, strict=True):
        winner, chosen = setting_of(grid["best"]), setting_of(other["best"])
        of_winner = [each[winner] for each in errors]
        rows.append(
            {
                "winner": winner,
                "winner_error": mine[winner],
                "spread": statistics.stdev(of_winner) if len(of_winner) > 1 else None,
                "chosen": chosen,
                "chosen_error": mine[chosen],
                "gap": mine[chosen] - mine[winner],
                "cost": other["epochs_trained"] / grid["epochs_trained"],
                "seconds": [grid["seconds"], other["seconds"]],
            }
        )
    within = [row["spread"] is not None and row["gap"] <= row["spread"] for row in rows]
    return {"repeats": rows, "within_spread": within, "at_most_half": [row["cost"] <= 0.5 for row in rows]}


def main() -> None:
    """Parse, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="shards of CIFAR-10")
    parser.add_argument("--work", required=True, help="folder for the searches")
    parser.add_argument("--network", default="cifar10-resnet8")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--points", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--schedulers", nargs="+", default=["short-first"], choices=["short-first", "asha"])
    parser.add_argument("--out", help="file for the result, too")
    words = parser.parse_args()
    Path(words.work).mkdir(parents=True, exist_ok=True)
    grids = [searched("none", seed, words) for seed in range(words.repeats)]
    found: dict[str, Any] = {
        "command": f"benchmarks/training/search.py {' '.join(sys.argv[1:])}",
        "commit": provenance.git_commit(),
        "hardware": describe_hardware(),
    }
    for scheduler in words.schedulers:
        found[scheduler] = compared(grids, [searched(scheduler, seed, words) for seed in range(words.repeats)])
    if words.out:
        Path(words.out).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
