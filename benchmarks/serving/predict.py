#!/usr/bin/env python3
"""Offline prediction of many images on two cores: jobs/predict_images.py, a bare loop, Ray Data and Daft.

    python benchmarks/serving/predict.py --images IMAGENETTE --rounds 3 --out results/predict.json
    uv pip install --target DAFT daft            for --daft DAFT, outside of the environment; else Daft is left out

Claim: at least 0.95 of the images a second of the bare loop, and more than Daft and Ray Data. All classify the same
files with ResNet-18 (untrained, the same weights) from a cold start, each a process of its own, in turns; every one
keeps the five most probable classes of each image and writes Parquet. The bare loop is a process a core that decodes
and classifies batches of 32 with the endpoint's own code, as ours does, without Ray. Ray Data is its documentation's
batch inference: read_images, map, map_batches with a class, on torchvision's network. Daft is its own benchmark of
classifying images (benchmarking/ai/image_classification in its repository): download, decode, apply, a class with
max_concurrency. Both are in float32, as their pages have it.

seconds: from the start of the process to its end; running: images a second between its first and its last result, the
pace of a long run, 0 where the first holds a quarter of all; first_s: until the first result can be read; memory: the
most of all its processes, shared pages counted in part (PSS). Medians over rounds, and lowest and highest. The last
line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from resnet.host.cpu_quota import usable_cores

ROOT = Path(__file__).resolve().parents[2]
NETWORK = "imagenet-resnet18-B"  # torchvision's
BATCH, TOP = 32, 5
PEERS_BATCH = 100  # of Daft's and Ray Data's scripts
LOOK, WEIGH = 0.1, 3.0  # seconds between two looks at ours's parts, and at everybody's memory
EARLY = 4  # a first result of more than such a part of the images says nothing of the pace
LIMIT = 1800  # seconds that a run may take
Note = Callable[[int], None]


# --- Contenders, each in a process of its own -------------------------------------------------------------------------


def bare(images: Path, checkpoint: Path, folder: Path, note: Note) -> None:
    """A process a core, each with its part of the files."""
    from multiprocessing import get_context

    cores = usable_cores()
    context = get_context("spawn")
    parts = [context.Process(target=_loop, args=(images, checkpoint, folder, n, cores)) for n in range(cores)]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
        assert part.exitcode == 0


def _loop(images: Path, checkpoint: Path, folder: Path, number: int, count: int) -> None:
    """Decode, classify, note, write."""
    import pyarrow as pa
    from pyarrow import parquet

    from resnet.host import glibc_allocator
    from serve.inference.offline_classifier import Offline

    glibc_allocator.keep()
    note = noting(folder)
    model, rows = Offline(str(checkpoint)), []
    files = files_in(images)[number::count]
    for at in range(0, len(files), BATCH):
        some = files[at : at + BATCH]
        answers = model.run_batch([model.crop(path.read_bytes()) for path in some])
        for path, answer in zip(some, answers, strict=True):
            best = model.best(answer.probabilities, TOP)
            rows.append(
                {
                    "key": path.relative_to(images).as_posix(),
                    "id": [p.image_class.id for p in best],
                    "name": [p.image_class.name for p in best],
                    "probability": [p.probability for p in best],
                }
            )
        note(len(some))
    parquet.write_table(pa.Table.from_pylist(rows), folder / f"part-{number}.parquet", compression="zstd")


def torchvision_network(checkpoint: Path) -> Any:
    """torchvision's ResNet-18 with our weights, which have its names."""
    from safetensors.torch import load_file
    from torchvision.models import resnet18

    network = resnet18()
    network.load_state_dict(load_file(checkpoint / "model.safetensors"))
    return network.eval()


def transform_of_peers() -> Any:
    """ResNet18_Weights.DEFAULT.transforms() after ToTensor, as both scripts have it; without its download."""
    from torchvision import transforms
    from torchvision.transforms._presets import ImageClassification

    return transforms.Compose([transforms.ToTensor(), ImageClassification(crop_size=224)])


def best_rows(network: Any, batch: Any) -> list[tuple[list[int], list[float]]]:
    """Ids and probabilities of the most probable classes."""
    import torch

    with torch.inference_mode():
        found = network(batch).softmax(1).topk(TOP)
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


def ray_data(images: Path, checkpoint: Path, folder: Path, note: Note) -> None:
    """Ray Data's batch inference: a core for the network, the others for reading and transforming."""
    from pipelines.cluster import private_ray

    private_ray.start_private(num_cpus=usable_cores())
    import pyarrow as pa
    import ray
    import torch
    from PIL import Image
    from pyarrow import parquet

    ray.data.DataContext.get_current().enable_progress_bars = False
    transform, load, find = transform_of_peers(), torchvision_network, best_rows

    def transform_image(row: dict[str, Any]) -> dict[str, Any]:
        image = Image.fromarray(row["image"]).convert("RGB")
        return {"path": row["path"], "norm_image": transform(image).numpy()}

    class Actor:
        """The network."""

        def __init__(self) -> None:
            self.network = load(checkpoint)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            found = find(self.network, torch.from_numpy(batch["norm_image"]))
            return {"key": batch["path"], "id": [ids for ids, _ in found], "probability": [p for _, p in found]}

    dataset = (
        ray.data.read_images(str(images), include_paths=True, mode="RGB", file_extensions=["jpeg", "jpg", "JPEG"])
        .map(transform_image)
        .map_batches(Actor, batch_size=PEERS_BATCH, num_cpus=1, concurrency=1)
    )
    tables = []
    batches: Any = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    for table in batches:
        note(table.num_rows)
        tables.append(table)
    parquet.write_table(pa.concat_tables(tables), folder / "part-0.parquet", compression="zstd")


def daft(images: Path, checkpoint: Path, folder: Path, note: Note) -> None:
    """Daft's own benchmark of classifying images, on its runner for one machine."""
    import daft as df  # pyright: ignore[reportMissingImports]
    import numpy as np
    import pyarrow as pa
    import torch
    from pyarrow import parquet

    transform = transform_of_peers()

    @df.cls(max_concurrency=1)
    class Model:
        """The network."""

        def __init__(self) -> None:
            torch.set_num_threads(usable_cores())
            self.network = torchvision_network(checkpoint)

        @df.method.batch(return_dtype=df.DataType.string(), batch_size=PEERS_BATCH)
        def __call__(self, images: Any) -> list[str]:
            if len(images) == 0:
                return []
            return [json.dumps(row) for row in best_rows(self.network, torch.from_numpy(np.array(images.to_pylist())))]

    table = df.from_glob_path(f"{images}/**/*.JPEG")
    table = table.with_column("image", table["path"].download().decode_image(mode=df.ImageMode.RGB))
    kind = df.DataType.tensor(dtype=df.DataType.float32(), shape=(3, 224, 224))
    table = table.with_column("norm", table["image"].apply(lambda image: transform(image).numpy(), return_dtype=kind))
    table = table.with_column("best", Model()(table["norm"])).select("path", "best")
    batches = []
    for batch in table.to_arrow_iter():
        note(batch.num_rows)
        batches.append(batch)
    parquet.write_table(pa.Table.from_batches(batches), folder / "part-0.parquet", compression="zstd")


RUNS = {"bare": bare, "ray-data": ray_data, "daft": daft}
CONTENDERS = ["ours", *RUNS]


# --- One run, from outside --------------------------------------------------------------------------------------------


def files_in(images: Path) -> list[Path]:
    """All JPEGs below a folder."""
    return sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg"))


def noting(folder: Path) -> Note:
    """A function by which a contender says that so many more images can be read."""
    file = os.open(folder / "progress", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(count: int) -> None:
        os.write(file, f"{time.monotonic()} {count}\n".encode())

    return note


def rows_in(part: Path) -> int:
    """Rows of a Parquet file."""
    from pyarrow import parquet

    return parquet.read_metadata(part).num_rows


@contextlib.contextmanager
def parts_noted(out: Path, folder: Path) -> Iterator[None]:
    """Within: each part that appears is noted as progress."""
    note, ended, seen = noting(folder), threading.Event(), set()

    def look() -> None:
        for part in sorted(out.glob("part-*.parquet")) if out.exists() else ():
            if part not in seen:
                seen.add(part)
                note(rows_in(part))

    def follow() -> None:
        while not ended.wait(LOOK):
            look()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()


class Weighed(threading.Thread):
    """The most memory that a process and what it started hold, in MiB."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid, self.most, self.ended = pid, 0.0, threading.Event()

    def run(self) -> None:
        """Look once in a while."""
        import psutil

        while not self.ended.wait(WEIGH):
            total = 0.0
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(self.pid)
                for process in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += process.memory_full_info().pss / 2**20
            self.most = max(self.most, total)


def once(name: str, images: Path, checkpoint: Path, count: int, options: argparse.Namespace) -> dict[str, float]:
    """One run of a contender."""
    with tempfile.TemporaryDirectory(prefix=f"predict-{name}-") as place:
        folder = Path(place)
        out = folder / "out.parquet" if name == "ours" else folder
        words = [sys.executable, __file__, "--run", name, str(images), str(checkpoint), place]
        if name == "ours":
            words = [sys.executable, str(ROOT / "jobs" / "predict_images.py"), str(checkpoint)]
            words += ["--images", str(images), "--out", str(out)]
        told = {"OMP_NUM_THREADS": "1", "RESNET_HOME": str(folder / "home"), "DAFT_ANALYTICS_ENABLED": "0"}
        told["PYTHONPATH"] = os.pathsep.join([str(ROOT), *([str(options.daft)] if name == "daft" else [])])
        with open(folder / "log", "w") as log, parts_noted(out, folder) if name == "ours" else contextlib.nullcontext():
            began = time.monotonic()
            process = subprocess.Popen(words, stdout=log, stderr=log, env=os.environ | told, cwd=ROOT)
            weighed = Weighed(process.pid)
            weighed.start()
            code = process.wait(LIMIT)
            ended = time.monotonic()
            weighed.ended.set()
        if code != 0:
            raise SystemExit(f"{name} ended with status {code}:\n{(folder / 'log').read_text()[-3000:]}")
        written = sum(rows_in(part) for part in out.glob("part-*.parquet"))
        assert written == count, f"{name} wrote {written} of {count} images"
        notes = sorted(tuple(map(float, line.split())) for line in (folder / "progress").read_text().splitlines())
    assert sum(int(images) for _, images in notes) == count
    span = notes[-1][0] - notes[0][0]
    return {
        "images_per_second": count / (ended - began),
        "running": (count - notes[0][1]) / span if notes[0][1] < count / EARLY else 0.0,
        "seconds": ended - began,
        "first_s": notes[0][0] - began,
        "memory_mib": weighed.most,
    }


# --- All runs ---------------------------------------------------------------------------------------------------------


def some_of(images: Path, count: int | None, folder: Path) -> tuple[Path, int]:
    """The folder of the images and their number; of fewer than all, links in class folders."""
    files = files_in(images)
    if count is None or count >= len(files):
        return images, len(files)
    for path in files[:: len(files) // count][:count]:
        link = folder / "images" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    return folder / "images", count


def summary(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Median, lowest and highest of each figure, and shares of the bare loop, round by round."""
    found: dict[str, Any] = {}
    for name, runs in rounds.items():
        figures = {figure: [run[figure] for run in runs] for figure in runs[0]}
        if "bare" in rounds:
            for figure in ("images_per_second", "running"):
                pairs = zip(runs, rounds["bare"], strict=True)
                figures[f"{figure}_of_bare"] = [mine[figure] / base[figure] for mine, base in pairs]
        found[name] = {
            figure: [round(f(values), 3) for f in (statistics.median, min, max)] for figure, values in figures.items()
        }
    return found


def contenders(options: argparse.Namespace) -> list[str]:
    """Those that can run; why another is left out is said."""
    names = list(options.only)
    if "daft" in names and not (options.daft and (options.daft / "daft").is_dir()):
        print("Daft is left out: give --daft DIR, into which it was installed", file=sys.stderr)
        names.remove("daft")
    return names


def main() -> int:
    """Run all in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--images", type=Path, help="folder of JPEGs, with the folders in it")
    add("--count", type=int, help="of them; default all")
    add("--rounds", type=int, default=3)
    add("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    add("--daft", type=Path, help="folder into which Daft was installed")
    add("--out", type=Path, help="JSON file to write")
    add("--run", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, images, checkpoint, folder = options.run
        RUNS[name](Path(images), Path(checkpoint), Path(folder), noting(Path(folder)))
        return 0
    if options.images is None or not files_in(options.images):
        parser.error(f"--images must be a folder with JPEGs, got {options.images}")
    from benchmarks.serving.serve import write_checkpoint
    from pipelines.provenance import git_commit
    from resnet.host.hardware import describe_hardware

    names = contenders(options)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="predict-") as place:
        images, count = some_of(options.images.resolve(), options.count, Path(place))
        checkpoint = write_checkpoint(NETWORK, Path(place))
        for number in range(options.rounds):
            for name in names if number % 2 == 0 else names[::-1]:
                rounds[name].append(once(name, images, checkpoint, count, options))
                told = {figure: round(value, 2) for figure, value in rounds[name][-1].items()}
                print(f"{name}: {json.dumps(told)}", file=sys.stderr, flush=True)
    result = {
        "benchmark": "predict",
        "network": NETWORK,
        "images": count,
        "rounds": options.rounds,
        "median_low_high": summary(rounds),
        "command": "python benchmarks/serving/predict.py " + " ".join(sys.argv[1:]),
        "commit": git_commit(),
        "hardware": describe_hardware(),
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
