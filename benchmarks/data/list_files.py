#!/usr/bin/env python3
"""Seconds and memory to list, shuffle and fingerprint many small files in class folders, as a preparation begins.

    python benchmarks/data/list_files.py --files 1000000 --classes 1000 --folder /big/disk/files

Makes the files where they are not there yet (empty but for one byte), and leaves them. One JSON line; megabytes are the
peak of the process that lists, and `base` is what it has before it begins.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

LIST = """
import json, resource, sys, time
from pipelines.preparation.splits.drawn_splits import Drawing
from pipelines.preparation.shard_plan import default_row_group_size, fingerprint, plan
from pipelines.preparation.sources import Source, list_source
import pipelines.preparation.prepare
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2 ** 20 if sys.platform == "darwin" else 2 ** 10)
def clock():
    return time.monotonic(), time.process_time()
base, start = peak(), clock()
listing = list_source(Source(path=sys.argv[1]), Drawing(val_share=0.1) if sys.argv[2] == "draw" else None)
listed = clock()
listed_peak = peak()
plans = plan(listing, default_row_group_size(listing), 192 * 2**20, 0)
fingerprint(listing, plans)
end = clock()
print(json.dumps({
    "files": listing.images, "list_seconds": round(listed[0] - start[0], 1), "list_cpu": round(listed[1] - start[1], 1),
    "plan_seconds": round(end[0] - listed[0], 1), "plan_cpu": round(end[1] - listed[1], 1),
    "base_megabytes": base, "listed_megabytes": listed_peak, "megabytes": peak(),
}))
"""


def make(folder: Path, files: int, classes: int) -> None:
    """train/ with the files in class folders, and val/ with one file a class."""
    for c in range(classes):
        for split, count in (("train", files // classes), ("val", 1)):
            inside = folder / split / f"class{c:05d}"
            inside.mkdir(parents=True, exist_ok=True)
            if len(os.listdir(inside)) == count:
                continue
            for i in range(count):
                with open(inside / f"image_{c:05d}_{i:07d}.jpg", "wb") as file:
                    file.write(b"x")


def main() -> None:
    """Make the files, list them in a process of its own, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--draw", action="store_true", help="draw val from train too")
    options = parser.parse_args()
    make(options.folder, options.files, options.classes)
    root = options.folder / "train" if options.draw else options.folder
    command = [sys.executable, "-c", LIST, str(root), "draw" if options.draw else "keep"]
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


if __name__ == "__main__":
    main()
