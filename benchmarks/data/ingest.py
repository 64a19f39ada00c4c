"""Full-size ImageNet images to uint8 batches of 128 random resized crops of 224: every peer's loader and ours.

    make bench-peers                                  the peers, into a virtual environment of their own
    python benchmarks/data/ingest.py                       250 images, 8 times each; one core, then two; 5 rounds
    python benchmarks/data/ingest.py --quick --only dali ours-originals bare-originals

Contenders run interleaved: in each round every one runs once, as a process of its own, which measures its own steady
state after a warm-up. Ratios are taken round by round, their median and spread are printed. On a machine with other
work read the ratios of CPU seconds an image: they do not count the seconds that other programs took.

With --runs FILE each run is kept, and the same command goes on with what is missing: long runs in pieces (--minutes).

ours-originals keeps the files' bytes; ours-256 and ours-320 are shards re-encoded once, at quality 90, with that
shorter side. They decode late, in threads of the consumer, as data.decode auto chooses on one machine; tasks-* decode
in Ray Data tasks. bare-* is the same decoding of the same rows in plain processes, without Ray or a consumer: what
it is faster is what Ray Data costs. All of ours keep their memory as the workers of a training do
(resnet/host/glibc_allocator.py). The last line of stdout is JSON; the rest is on stderr. ../shared/data beside the
project has the images, or name a folder of class folders with --images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ingest_peers as peers

from pipelines.progress.console import say
from resnet.host import glibc_allocator
from resnet.host.cpu_quota import usable_cores

ROOT = Path(__file__).resolve().parents[2]
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
UNPACK = ROOT.parent / "shared" / "data" / "unpack.py"
SHARDS = {"originals": None, "256": 256, "320": 320}  # shorter side after re-encoding
QUALITY = 90
ROWS = 64  # of a row group: two windows of 16 in 2,000 images, so that two tasks have work
OURS = [f"{way}-{shards}" for shards in SHARDS for way in ("ours", "tasks", "bare")]
CONTENDERS = [*peers.PEERS, *OURS]
BATCHES = 96  # measured for ours, a core: each task hands on a window, of 8 batches, in its turn
STRETCH = 20  # times that the row groups are gone through in the epoch that is measured
IMAGENET = 320  # times that make the 621 windows of ImageNet: for the first batch of an epoch
QUICK = 2.0  # seconds of a quick run
LIMIT = 300  # seconds that one run may take


# --- The images -------------------------------------------------------------------------------------------------------


def find_images(given: Path | None, data: Path) -> Path:
    """A folder of class folders of JPEGs: as given, or the sample beside the project, unpacked. ValueError: neither."""
    if given is not None:
        if not any(given.glob("*/*")):
            raise ValueError(f"--images must be a folder of class folders, got {given}")
        return given.resolve()
    if not UNPACK.exists():
        raise ValueError(f"--images must be given: {UNPACK} is not there")
    subprocess.run([sys.executable, UNPACK, data / "sample", "imagenet-sample"], check=True, stdout=sys.stderr)
    return (data / "sample" / "imagenet-sample").resolve()


def link(images: Path, out: Path, repeat: int) -> None:
    """Class folders train/ and a small val/, with `repeat` links to each image."""
    files = sorted(images.glob("*/*"))
    for split, chosen, copies in (("train", files, repeat), ("val", files[:8], 1)):
        for path in chosen:
            folder = out / split / path.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            for k in range(copies):
                (folder / f"{path.stem}_{k}{path.suffix}").symlink_to(path)


def prepare(images: Path, data: Path, repeat: int) -> None:
    """The class folders and our shards, unless they are there. Re-encodes each image once, not once a repeat."""
    from pipelines.preparation.prepare import write_shards
    from pipelines.preparation.sources import Source
    from pipelines.shards.manifest import Encoding

    if not (data / "folders").exists():
        link(images, data / "folders", repeat)
    for name, side in SHARDS.items():
        if (data / name / "manifest.json").exists():
            continue
        source = data / "folders"
        if side is not None:
            link(images, data / "once", 1) if not (data / "once").exists() else None
            once = str(data / f"once-{name}")
            write_shards(
                Source(path=str(data / "once")), once, encoding=Encoding(shorter_side=side, quality=QUALITY), workers=0
            )
            source = data / f"folders-{name}"
            unpack_shards(once, source, repeat)
        write_shards(Source(path=str(source)), str(data / name), row_group_size=ROWS, workers=0)


def unpack_shards(uri: str, out: Path, repeat: int) -> None:
    """The images of shards as class folders, with `repeat` links to each."""
    from pipelines.shards.row_groups import open_split

    for split in ("train", "val"):
        part = open_split(uri, split)[1]
        for group in range(len(part.rows)):
            rows = part.read(group, ("image", "key"))
            for image, key in zip(rows["image"], rows["key"], strict=True):
                path = out / "files" / key.rpartition("/")[0].rpartition("/")[2] / f"{split}_{Path(key).name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(image)
                folder = out / split / path.parent.name
                folder.mkdir(parents=True, exist_ok=True)
                for k in range(repeat if split == "train" else 1):
                    (folder / f"{path.stem}_{k}.JPEG").symlink_to(path.resolve())


# --- Ours -------------------------------------------------------------------------------------------------------------


def recipe_images() -> Any:
    """The input policy: random resized crop of 8 to 100 % of the area, mirror."""
    from resnet.recipes.recipe_settings import Images

    return Images(size=224, policy="random-resized-crop", area=(0.08, 1), eval_shorter_side=256, mean="per-channel")


def opened(uri: str) -> tuple[Any, Any]:
    """The training split of shards and its order."""
    from pipelines.shards.row_groups import open_split
    from pipelines.stream.example_order import Order

    split = open_split(uri, "train")[1]
    return split, Order(split.rows, peers.BATCH, 16, 0)


def stretched(uri: str, times: int) -> tuple[Any, Any]:
    """The same row groups so many times over: an epoch that does not end while it is measured."""
    from pipelines.stream.example_order import Order

    split, order = opened(uri)
    long = replace(split, places=split.places * times, rows=split.rows * times)
    return long, Order(long.rows, order.batch_size, order.window, order.seed)


def run_ours(uri: str, cores: int, batches: int, decode: Any) -> dict[str, float]:
    """Our stream through Ray Data, one consumer: a whole epoch to warm up, then so many batches of the next."""
    from pipelines.cluster import free_cpus, private_ray
    from pipelines.stream import streamed

    context = private_ray.start_private(num_cpus=cores, object_store_memory=2**30)
    address, store = context.address_info["gcs_address"], [0.0]

    def epoch(number: int, times: int) -> Generator[Any]:
        split, order = stretched(uri, times)
        place = (number, 0, 0, 1, free_cpus.TaskBudget.of(cores), decode, cores)
        for i, batch in enumerate(streamed.streamed_batches(split, order, recipe_images(), *place)):
            if i % 16 == 0:  # asking costs milliseconds
                store.append(store_used(address))
            yield batch.images

    begin = time.perf_counter()
    firsts = [time.perf_counter() - begin for i, _ in enumerate(epoch(0, 1)) if i == 0]
    begin = time.perf_counter()
    with contextlib.closing(epoch(1, IMAGENET)) as batches_of_imagenet:
        next(batches_of_imagenet)
        later = time.perf_counter() - begin
    warm = peers.steady(lambda: epoch(2, STRETCH), batches)
    return warm | {"first_batch_s": firsts[0], "next_epoch_s": later, "store_mib": max(store)}


def store_used(address: str) -> float:
    """MiB in Ray's object store now."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    return get_memory_info_reply(get_state_from_address(address)).store_stats.object_store_bytes_used / 2**20


def run_bare(uri: str, cores: int, seconds: float) -> dict[str, float]:
    """Our decoding in plain processes, a process a core, each with its part of the row groups."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(cores)
    with context.Pool(cores, initializer=_keep_barrier, initargs=(barrier,)) as pool:
        parts = pool.starmap(_bare_part, [(uri, rank, cores, seconds) for rank in range(cores)], chunksize=1)
    images = sum(part["images"] for part in parts)
    return {
        "rate": sum(part["images"] / part["wall"] for part in parts),
        "cpu_s": sum(part["cpu"] for part in parts) / images,
        "first_batch_s": max(part["first"] for part in parts),
    }


_BARRIER: Any = None


def _keep_barrier(barrier: Any) -> None:
    global _BARRIER
    _BARRIER = barrier


def _bare_part(uri: str, rank: int, cores: int, seconds: float) -> dict[str, float]:
    """One process: warm up by a batch, wait for the others, decode for so many seconds."""
    batches = _bare_batches(uri, rank, cores)
    begin = time.perf_counter()
    peers.check(next(batches))
    first = time.perf_counter() - begin
    _BARRIER.wait()
    images, wall, start, cpu = 0, 0.0, time.perf_counter(), time.process_time()
    while wall < seconds:
        images += peers.check(next(batches))
        wall = time.perf_counter() - start
    return {"images": images, "wall": wall, "cpu": time.process_time() - cpu, "first": first}


def _bare_batches(uri: str, rank: int, cores: int) -> Iterator[Any]:
    """Batches of every epoch, without end."""
    import numpy as np

    from pipelines.stream.augmentation import augment

    (split, order), policy = opened(uri), recipe_images()
    epoch, at, batch = 0, 0, np.empty((peers.BATCH, peers.SIZE, peers.SIZE, 3), np.uint8)
    while True:
        for group in range(rank, len(split.rows), cores):
            for row, data in enumerate(split.read(group)["image"]):
                augment(data, policy, np.random.default_rng((order.seed, epoch, group, row)), batch[at])
                at += 1
                if at == peers.BATCH:
                    yield batch
                    at, batch = 0, np.empty_like(batch)
        epoch += 1


# --- Runs -------------------------------------------------------------------------------------------------------------


def run_here(name: str, data: Path, cores: int, seconds: float) -> dict[str, float]:
    """One run of one of ours, in this process."""
    way, _, shards = name.partition("-")
    peers.keep_to(cores)
    os.environ["OMP_NUM_THREADS"] = "1"
    if way == "bare":
        return run_bare(str(data / shards), cores, seconds)
    batches = BATCHES * cores if seconds > QUICK else 8 * cores
    return run_ours(str(data / shards), cores, batches, "worker" if way == "ours" else "tasks")


def command(name: str, data: Path, cores: int, options: argparse.Namespace) -> list[str]:
    """The command that runs a contender once."""
    if name in OURS:
        given = ["--run", name, "--data", str(data), "--cores", str(cores), "--seconds", str(options.seconds)]
        return [sys.executable, __file__, *given]
    python = str(PEERS_PYTHON) if PEERS_PYTHON.exists() else sys.executable
    batches = max(4, options.batches * cores)
    given = [name, "--data", str(data), "--cores", str(cores), "--batches", str(batches)]
    return [python, peers.__file__, *given]


def run_once(name: str, data: Path, cores: int, options: argparse.Namespace) -> dict[str, Any] | str:
    """The result of one run, or why there is none."""
    wanted = command(name, data, cores, options)
    try:
        environment = os.environ | (glibc_allocator.KEPT if name in OURS else {})
        done = subprocess.run(wanted, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return f"took more than {LIMIT} s"
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][-200:]


def absent(name: str, data: Path) -> str | None:
    """The reason that a peer cannot run, after writing its format; None if it can."""
    if name in OURS:
        return None
    if not PEERS_PYTHON.exists():
        return None if name.startswith("torchvision") else "not installed: make bench-peers"
    done = subprocess.run(
        [PEERS_PYTHON, peers.__file__, name, "--data", data, "--write"], capture_output=True, text=True, check=False
    )
    return (done.stderr.strip().splitlines() or ["cannot write its format"])[-1] if done.returncode else None


def measure(data: Path, options: argparse.Namespace) -> tuple[dict[tuple[str, int], list[Any]], dict[str, str]]:
    """All rounds: (contender, cores) -> a result a round; and why a contender is missing."""
    results = kept(options.runs)
    begin, missing = time.monotonic(), {}
    for number in range(options.rounds):
        for cores in options.cores:
            for name in options.only:
                runs = results.setdefault((name, cores), [])
                if name in missing or len(runs) > number or time.monotonic() - begin > 60 * options.minutes:
                    continue
                got = absent(name, data) or run_once(name, data, cores, options)
                if isinstance(got, str):
                    missing[name] = got
                    say(f"{name}: {got}")
                    continue
                keep(options.runs, {"contender": name, "cores": cores} | got)
                runs.append(got)
                load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "-"
                say(
                    f"round {number + 1}/{options.rounds}  {cores} cores  {name:24s} {got['rate']:7.1f} img/s  "
                    f"{1000 * got['cpu_s']:6.2f} ms CPU/img  load {load}"
                )
    return {key: runs for key, runs in results.items() if runs and key[0] not in missing}, missing


def kept(path: Path | None) -> dict[tuple[str, int], list[Any]]:
    """The runs that a file holds, a JSON line each."""
    results: dict[tuple[str, int], list[Any]] = {}
    for line in path.read_text().splitlines() if path and path.exists() else []:
        run = json.loads(line)
        results.setdefault((run["contender"], run["cores"]), []).append(run)
    return results


def keep(path: Path | None, run: dict[str, Any]) -> None:
    """Add a run to the file."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(run) + "\n")


# --- What it says -----------------------------------------------------------------------------------------------------


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratio(results: dict[tuple[str, int], list[Any]], a: str, b: str, cores: int, cpu: bool) -> dict[str, float] | None:
    """Speed of a over speed of b, round by round. cpu: by CPU seconds an image, else by images a second."""
    if (a, cores) not in results or (b, cores) not in results:
        return None
    pairs = zip(results[a, cores], results[b, cores], strict=False)  # a run that was cut short may lack the last
    return spread([y["cpu_s"] / x["cpu_s"] if cpu else x["rate"] / y["rate"] for x, y in pairs])


def rows_of(results: dict[tuple[str, int], list[Any]]) -> list[dict[str, Any]]:
    """The table: a row for each contender and number of cores."""
    rows = []
    for (name, cores), runs in results.items():
        row: dict[str, Any] = {"contender": name, "cores": cores, "version": runs[0].get("version")}
        row["rate"] = spread([run["rate"] for run in runs])
        row["cpu_ms"] = spread([1000 * run["cpu_s"] for run in runs])
        row["over_torchvision"] = ratio(results, name, "torchvision-references", cores, False)
        row["over_torchvision_cpu"] = ratio(results, name, "torchvision-references", cores, True)
        for key in ("first_batch_s", "next_epoch_s", "read_kb", "store_mib"):
            row[key] = statistics.median([run[key] for run in runs]) if key in runs[0] else None
        one = results.get((name, 1))
        row["growth"] = spread([r["rate"] / o["rate"] for r, o in zip(runs, one, strict=False)]) if one else None
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for eyes."""
    head = (
        f"{'contender':24s} cores {'img/s':>18s}  {'CPU ms/img':>17s}  {'over torchvision':>18s}  {'same, CPU':>18s}  "
        "first s  next s  read KB  store MiB  growth"
    )
    lines = [head]
    for row in rows:
        a, b = show(row["rate"], 0), show(row["cpu_ms"], 2)
        c, d = show(row["over_torchvision"], 2), show(row["over_torchvision_cpu"], 2)
        few = [plain(row[k]) for k in ("first_batch_s", "next_epoch_s", "read_kb", "store_mib")]
        growth = plain(row["growth"] and row["growth"]["median"])
        lines.append(
            f"{row['contender']:24s} {row['cores']:5d} {a:>18s}  {b:>17s}  {c:>18s}  {d:>18s}  {few[0]:>7s}  "
            f"{few[1]:>6s}  {few[2]:>7s}  {few[3]:>9s}  {growth:>6s}"
        )
    return "\n".join(lines)


def show(value: dict[str, float] | None, digits: int) -> str:
    """Median [least-most]."""
    if value is None:
        return "-"
    return f"{value['median']:.{digits}f} [{value['min']:.{digits}f}-{value['max']:.{digits}f}]"


def plain(value: float | None) -> str:
    """A number, or a dash."""
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


GOALS = {
    "over_torchvision_originals": ("ours-originals", "torchvision-references"),
    "over_torchvision_reencoded": ("ours-256", "torchvision-references"),
    "over_dali": ("ours-originals", "dali"),
    "over_ffcv": ("ours-originals", "ffcv-jpg"),
    "over_ffcv_half_raw": ("ours-256", "ffcv-400-half-raw"),
    "of_bare_loop": ("ours-originals", "bare-originals"),
    "of_bare_loop_reencoded": ("ours-256", "bare-256"),
    "of_bare_loop_in_tasks": ("tasks-originals", "bare-originals"),
    "of_bare_loop_in_tasks_reencoded": ("tasks-256", "bare-256"),
}


def goals(results: dict[tuple[str, int], list[Any]], cores: int, cpu: bool) -> dict[str, float | None]:
    """The ratios that the issue asks for; None where one of the two did not run."""
    found = {name: ratio(results, a, b, cores, cpu) for name, (a, b) in GOALS.items()}
    return {name: round(value["median"], 3) if value else None for name, value in found.items()}


def fidelity(data: Path, images: Path) -> dict[str, float]:
    """Mean absolute difference, in grey levels, of our crops to Pillow's of the original file, for the same boxes."""
    import numpy as np
    from PIL import Image

    from resnet.images import jpeg_header, jpeg_region
    from resnet.images.crops.training_crops import draw_resized_crop, random_resized_crop
    from resnet.images.decode import decode

    files = sorted(images.glob("*/*"))
    found: dict[str, list[float]] = {name: [] for name in SHARDS}
    for number, path in enumerate(files):
        original = path.read_bytes()
        pixels = decode(original)
        height, width = pixels.shape[:2]
        rng = np.random.default_rng(number)
        top, left, tall, wide = draw_resized_crop(rng, height, width, peers.AREA, peers.RATIO)
        part = Image.fromarray(pixels).crop((left, top, left + wide, top + tall))
        wanted = np.asarray(part.resize((224, 224), Image.Resampling.BILINEAR)).astype(np.int16)
        ours = random_resized_crop(original, np.random.default_rng(number), 224, peers.AREA)
        found["originals"].append(np.abs(ours - wanted).mean())
        for name in ("256", "320"):
            file = data / f"folders-{name}" / "files" / path.parent.name / f"train_{path.stem}_0.JPEG"
            header = jpeg_header.read_jpeg_header(file.read_bytes()) if file.exists() else None
            if header is None:
                continue
            y, x = header.height / height, header.width / width
            box = (top * y, left * x, tall * y, wide * x)
            ours = jpeg_region.crop_and_resize(jpeg_region.Cut(file.read_bytes(), header, box), 224, jpeg_region.best())
            found[name].append(np.abs(ours - wanted).mean())
    return {name: round(float(np.mean(values)), 3) for name, values in found.items() if values}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of class folders of JPEGs; else ../shared/data's sample")
    parser.add_argument("--data", type=Path, help="where the formats are kept. Default: runs/ingest in the project")
    parser.add_argument("--repeat", type=int, default=8, help="times that each image is used, under keys of its own")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender")
    parser.add_argument("--cores", type=int, nargs="+", default=None, help="default: 1 and, where there are more, 2")
    parser.add_argument("--batches", type=int, default=10, help="batches a core that a peer's run measures")
    parser.add_argument("--seconds", type=float, default=6.0, help="that a bare loop is measured")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS, metavar="NAME", help="contenders")
    parser.add_argument("--runs", type=Path, help="file that keeps each run; what it holds is not run again")
    parser.add_argument("--minutes", type=float, default=600, help="after which no further run is begun")
    parser.add_argument("--quick", action="store_true", help="one round of few batches: does everything run?")
    parser.add_argument("--run", choices=OURS, help="one run of one of ours; --data must be prepared")
    return parser


def main() -> int:
    """Prepare, measure, print."""
    options = arguments().parse_args()
    data = (options.data or ROOT / "runs" / "ingest").resolve()
    available = usable_cores()
    options.cores = options.cores or [cores for cores in (1, 2) if cores <= available]
    if options.run:
        print(json.dumps(run_here(options.run, data, options.cores[0], options.seconds)), flush=True)
        return 0
    if options.quick:
        options.rounds, options.batches, options.seconds = 1, 4, QUICK
    data.mkdir(parents=True, exist_ok=True)
    try:
        images = find_images(options.images, data)
        prepare(images, data, options.repeat)
    except ValueError as error:
        say(f"{error}")
        return 2
    from resnet.images import jpeg_region

    results, missing = measure(data, options)
    rows, cores = rows_of(results), max(options.cores)
    say(table(rows))
    for name, why in missing.items():
        say(f"{name}: null, {why}")
    from pipelines.provenance import git_commit
    from resnet.host.hardware import describe_hardware

    starts = [run["next_epoch_s"] for (name, _), runs in results.items() if name == "ours-originals" for run in runs]
    summary = goals(results, cores, False) | {
        "first_batch_s": round(statistics.median(starts), 3) if starts else None,
        "by_cpu": goals(results, cores, True),
        "one_core": goals(results, min(options.cores), False),
        "one_core_by_cpu": goals(results, min(options.cores), True),
        "grey_levels_from_pillow": fidelity(data, images),
        "engine": jpeg_region.best().name,
        "cores": options.cores,
        "rounds": options.rounds,
        "missing": missing,
        "command": "python benchmarks/data/ingest.py " + " ".join(sys.argv[1:]),
        "commit": git_commit(),
        "hardware": describe_hardware(),
        "rows": rows,
    }
    print(json.dumps(summary), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
