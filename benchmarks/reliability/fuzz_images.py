"""Mutated images through every decoder: no crash, no hang, no error but CorruptImage, and memory stays flat.

    python benchmarks/reliability/fuzz_images.py --cases 100000 [--images DIR] [--out results/fuzz-images.json]
    python benchmarks/reliability/fuzz_images.py --cases 100000 --asan       the C code under the address sanitizer

A case is a function of (--seed, its number): a real or generated image of some kind, changed by one to three mutations
(bytes flipped, a stretch cut, doubled, zeroed or taken from another image, numbers of its header forged, a scan of a
JPEG repeated). A worker process takes it through the header, the whole image, the training crops by each engine, the
centre crop, preparation with and without --shorter-side, and the endpoint's check. The worker is ended, and another
started, where a case takes more than --limit seconds of a CPU; its address space is bounded: a bomb is an error.

--asan compiles region.c with -fsanitize=address,undefined and runs the crops of engine libjpeg and the resizes alone,
with libasan loaded before Python, so that the arrays on both sides of a call have guards too.

The last line of stdout is JSON: outcomes by exception, the slowest cases, memory over the run. Exit status 1 if a case
crashed, hung or raised another error; --case N repeats one.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from resnet.images import jpeg_region, native_library
from resnet.images.checks import image_kinds, jpeg_scans
from resnet.images.checks.image_limits import CorruptImage
from resnet.images.crops import evaluation_crops, training_crops
from resnet.images.decode import decode, grey_levels, size_of
from resnet.images.grey_range import GreyRange

ADDRESS_SPACE = 6 * 2**30
WALL = 300.0  # seconds of one case on a machine that others keep busy; --limit is of a CPU's time
LARGE = 2**16  # bytes above which a real image is not used: its cases would only be slower
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g")


# --- Images ---


def generated(rng: np.random.Generator) -> dict[str, bytes]:
    """A file of each kind and variant that is decoded."""
    coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    rgb = Image.fromarray(coarse).resize((97, 71), Image.Resampling.BICUBIC)
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(rgb.size))
    deep = Image.fromarray(rng.integers(0, 4096, (40, 50), dtype=np.uint16))
    note = Image.Exif()
    note[0x0112] = 6
    frames = [rgb.rotate(30 * i) for i in range(1, 3)]
    files = {f"JPEG {s}": _encoded(rgb, "JPEG", subsampling=s) for s in ("4:4:4", "4:2:2", "4:2:0")}
    files["JPEG progressive"] = _encoded(rgb, "JPEG", progressive=True)
    files["JPEG restarts"] = _encoded(rgb, "JPEG", restart_marker_blocks=3)
    files["JPEG turned"] = _encoded(rgb, "JPEG", exif=note)
    for mode in ("L", "CMYK", "1", "P", "LA", "YCbCr"):
        kind = {"L": "JPEG", "CMYK": "JPEG", "YCbCr": "TIFF"}.get(mode, "PNG")
        files[f"{kind} {mode}"] = _encoded(alpha.convert(mode) if mode == "LA" else rgb.convert(mode), kind)
    for kind in ("PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO"):
        files[kind] = _encoded(rgb, kind)
    for kind in ("PNG", "WEBP", "AVIF", "TIFF", "ICO"):
        files[f"{kind} alpha"] = _encoded(alpha, kind)
    for kind in ("PNG", "WEBP", "GIF", "TIFF", "AVIF"):
        files[f"{kind} animated"] = _encoded(rgb, kind, save_all=True, append_images=frames)
    for kind in ("PNG", "TIFF", "PPM", "JPEG2000"):
        files[f"{kind} deep"] = _encoded(deep, kind)
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg", "group4"):
        image = rgb.convert("1") if compression == "group4" else rgb
        files[f"TIFF {compression}"] = _encoded(image, "TIFF", compression=compression)
    files["PNG turned"] = _encoded(rgb, "PNG", exif=note)
    files["WEBP lossless turned"] = _encoded(rgb, "WEBP", lossless=True, exif=note)
    files["PGM plain"] = b"P2 # comment\n4 3\n1000\n" + b" ".join(b"%d" % (80 * i) for i in range(12)) + b"\n"
    files["PBM plain"] = b"P1\n5 2\n10101\n01010\n"
    return files


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def seeds(folder: Path | None, most: int, rng: np.random.Generator) -> list[bytes]:
    """Generated images, and of a folder's those that are not large, at most so many, spread evenly."""
    found = list(generated(rng).values())
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size <= LARGE) if folder else []
    for i in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)) if paths else []:
        data = paths[i].read_bytes()
        if image_kinds.find_kind(data) is not None:
            found.append(data)
            if i % 4 == 0:
                found.append(_other_kind(data, int(i)))
    return found


def _other_kind(data: bytes, number: int) -> bytes:
    """A real image as another kind."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    kind = ("PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "JPEG")[number // 4 % 8]
    return _encoded(image, kind, **({"progressive": True} if kind == "JPEG" else {}))


# --- Mutations ---


def case(number: int, seed: int, files: list[bytes]) -> bytes:
    """The bytes of a case."""
    rng = np.random.default_rng((seed, number))
    data = bytearray(files[rng.integers(len(files))])
    for _ in range(int(rng.integers(1, 4))):
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        data = mutation(data, rng, files) or bytearray(b"\0")
    return bytes(data)


def _flip(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    reach = min(len(data), int(rng.choice([32, 700, len(data)])))
    for _ in range(int(rng.integers(1, 9))):
        data[rng.integers(reach)] = rng.integers(256)
    return data


def _bit(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return data


def _cut(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    return data[: int(rng.integers(1, len(data) + 1))]


def _stretch(data: bytearray, rng: np.random.Generator) -> slice:
    begin = int(rng.integers(len(data)))
    return slice(begin, begin + int(rng.integers(1, 1 + min(2048, len(data) - begin))))


def _remove(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    del data[_stretch(data, rng)]
    return data


def _zero(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    part = _stretch(data, rng)
    data[part] = bytes([int(rng.choice([0, 255]))]) * len(data[part])
    return data


def _double(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    part = bytes(data[_stretch(data, rng)])
    at = int(rng.integers(len(data)))
    data[at:at] = part * int(rng.integers(1, 5))
    return data


def _splice(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    other = files[rng.integers(len(files))]
    return data[: int(rng.integers(len(data)))] + other[int(rng.integers(len(other))) :]


def _forge(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    """A number of the header becomes an extreme one."""
    size = int(rng.choice([1, 2, 4]))
    value = int(rng.choice([0, 1, 2, 255, 256, 32767, 65535, 2**24, 2**31 - 1, 2**32 - 1])) % 256**size
    at = int(rng.integers(max(1, min(len(data), 400) - size)))
    data[at : at + size] = value.to_bytes(size, "little" if rng.random() < 0.5 else "big")
    return data


def _frame(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    """Another size, number of components or sampling of a JPEG."""
    frames = [b for m, b, _ in jpeg_scans.segments(bytes(data)) if 0xC0 <= m <= 0xC2 and b + 9 < len(data)]
    if frames:
        data[frames[0] + int(rng.integers(0, 9))] = int(rng.choice([0, 1, 2, 3, 4, 8, 12, 16, 17, 34, 68, 255]))
    return data


def _scans(data: bytearray, rng: np.random.Generator, files: list[bytes]) -> bytearray:
    """The last scan of a JPEG many times."""
    starts = [b - 4 for m, b, _ in jpeg_scans.segments(bytes(data)) if m == jpeg_scans.SOS]
    if starts and len(data) < LARGE:
        scan = data[starts[-1] : -2]
        data[-2:-2] = scan * int(rng.integers(1, max(2, min(200, 2**20 // max(1, len(scan))))))
    return data


Mutation = Callable[[bytearray, np.random.Generator, list[bytes]], bytearray]
MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _flip,
    _flip,
    _bit,
    _cut,
    _remove,
    _zero,
    _double,
    _splice,
    _forge,
    _forge,
    _frame,
    _scans,
)


# --- What a worker does with a case ---


def ways(asan: bool) -> dict[str, Callable[[bytes], object]]:
    """The ways that an image takes through the project, by name."""
    if asan:
        return {"crops": _crops_by_c, "resizes": _resizes}
    from pipelines.preparation.image_encoding import admit
    from pipelines.shards.manifest import Encoding
    from serve.inference import upload_checks
    from serve.problems import Problem

    def checked(data: bytes) -> None:
        try:
            upload_checks.check_upload(data, 50_000_000, 256)
        except Problem as problem:
            if problem.status not in (400, 413, 415):
                raise
            raise CorruptImage(problem.detail) from None

    small = Encoding(shorter_side=32, quality=90, grey_range=(0, 4095))
    return {
        "size": size_of,
        "upload": checked,
        "decode": lambda data: _sound(decode(data)),
        "centre": lambda data: _sound(evaluation_crops.center_crop(data, 32, 40, GreyRange(0, 4095))),
        "levels": grey_levels,
        "keep": lambda data: admit(data, "a/b.jpg", Encoding()),
        "shrink": lambda data: admit(data, "a/b.jpg", small),
        "crops": _crops,
    }


def _sound(pixels: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def _crops(data: bytes) -> None:
    """Training's crops, by each engine that is here."""
    for name in jpeg_region.ENGINES:
        engine = jpeg_region.engine(name)
        if engine is not None:
            _crops_by(engine, data)


def _crops_by_c(data: bytes) -> None:
    engine = jpeg_region.engine("libjpeg")
    assert engine is not None, "region.c was not compiled: no compiler, or no libjpeg-turbo"
    _crops_by(engine, data)


def _crops_by(engine: jpeg_region.JpegEngine, data: bytes) -> None:
    rng = np.random.default_rng(len(data))
    cuts = [
        training_crops.cut_resized(data, rng, flip=True),
        training_crops.cut_jittered(data, rng, 48, (55, 90), flip=True),
    ]
    outs = np.zeros((2, 48, 48, 3), np.uint8)
    if len(training_crops.make_all(cuts, 48, list(outs), engine)) == 2:
        raise CorruptImage("undecodable")


def _resizes(data: bytes) -> None:
    """Boxes and windows drawn from the case's bytes, of pixels that are its bytes, of sizes that fit them closely."""
    rng = np.random.default_rng(list(data[:64]))
    rows, columns = (int(rng.integers(1, 120)) for _ in range(2))
    pixels = np.resize(np.frombuffer(data, np.uint8), (rows, columns, 3))
    engine = jpeg_region.engine("libjpeg")
    assert engine is not None
    tall, wide = (float(rng.uniform(0.3, side)) for side in (rows, columns))
    box = float(rng.uniform(0, rows - tall)), float(rng.uniform(0, columns - wide)), tall, wide
    height, width = (int(rng.integers(1, 90)) for _ in range(2))
    engine.resize(pixels, box, height, width, None, bool(rng.random() < 0.5))
    down, across = (int(rng.integers(1, 200)) for _ in range(2))
    top, left = int(rng.integers(down)), int(rng.integers(across))
    window = top, left, int(rng.integers(1, down - top + 1)), int(rng.integers(1, across - left + 1))
    engine.resize_window(pixels, down, across, *window)


class Outcome(NamedTuple):
    """Of one case. by_way: "decoded" or the name of the exception; error: a traceback, or empty; MiB of memory."""

    number: int
    kind: str
    by_way: dict[str, str]
    error: str
    seconds: float
    slowest_way: str
    resident: float
    peak: float


def work(address: str, seed: int, options: argparse.Namespace) -> None:
    """A worker: numbers of cases come, outcomes go."""
    import warnings

    warnings.simplefilter("ignore")
    files = seeds(options.images, options.most, np.random.default_rng(seed))
    todo = ways(options.asan)
    if options.asan:
        native_library.FLAGS["libjpeg"] = (("-DREGION", *SANITIZE), ("-lm", "-ljpeg"))
    else:
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    for data in files[:60]:  # compile, import: not on a case's time
        _outcome(0, data, todo)
    with Client(address, "AF_UNIX") as connection:
        connection.send("ready")
        while (number := connection.recv()) is not None:
            connection.send(_outcome(number, case(number, seed, files), todo))


def _outcome(number: int, data: bytes, todo: dict[str, Callable[[bytes], object]]) -> Outcome:
    _forget_peak()
    by_way, times, error = {}, {}, ""
    for name, way in todo.items():
        began = time.process_time()
        by_way[name], trouble = _run(way, data)
        times[name] = time.process_time() - began
        error = error or (f"{name}: {trouble}" if trouble else "")
    resident, peak = _memory()
    found = image_kinds.find_kind(data)
    slowest = max(times, key=lambda name: times[name])
    return Outcome(number, found.name if found else "none", by_way, error, sum(times.values()), slowest, resident, peak)


def _run(way: Callable[[bytes], object], data: bytes) -> tuple[str, str]:
    try:
        way(data)
    except CorruptImage as error:
        return type(error).__name__, ""
    except Exception as error:
        return type(error).__name__, traceback.format_exc()
    return "decoded", ""


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory() -> tuple[float, float]:
    """MiB: resident, and its peak since the last call of _forget_peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # pyright: ignore[reportReturnType]


# --- The parent ---


class Worker:
    """A worker process, ended where a case takes too long."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder, self.started = options, folder, 0
        self.begin()

    def begin(self) -> None:
        """Start a process and wait until it has made its files."""
        self.started += 1
        address = str(self.folder / f"{os.getpid()}-{self.started}")
        words = [sys.executable, __file__, "--worker", address, "--seed", str(self.options.seed)]
        words += ["--images", str(self.options.images)] if self.options.images else []
        words += ["--most", str(self.options.most)] + (["--asan"] if self.options.asan else [])
        environment = dict(os.environ)
        if self.options.asan:
            libraries = (sanitizer(name) for name in ("libasan.so", "libubsan.so"))
            environment |= {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"}
        self.log = self.folder / f"log-{self.started}"  # libtiff says a line for each damaged file
        with Listener(address, "AF_UNIX") as listener, self.log.open("wb") as log:
            self.process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
            self.connection: Any = listener.accept()
        self.connection.recv()

    def ask(self, number: int) -> Outcome | str:
        """The outcome of a case, or how the worker ended."""
        try:
            self.connection.send(number)
            began, used = time.monotonic(), self._cpu_seconds()
            while not self.connection.poll(0.2):
                if self._cpu_seconds() - used > self.options.limit or time.monotonic() - began > WALL:
                    raise TimeoutError
            return self.connection.recv()
        except TimeoutError:
            reason = f"hang: longer than {self.options.limit:g} s of a CPU, or {WALL:g} s"
        except (EOFError, BrokenPipeError, ConnectionResetError):
            code = self.process.wait()
            reason = f"crash: {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"
            print(self.log.read_bytes()[-8000:].decode(errors="replace"), file=sys.stderr)
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.begin()
        return reason

    def _cpu_seconds(self) -> float:
        """Of the worker, all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Wait for its end."""
        self.connection.send(None)
        self.process.wait()


def sanitizer(name: str) -> str:
    """The path of a library of the compiler."""
    return subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def fuzz(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All cases, counted."""
    worker = Worker(options, folder)
    counts: dict[str, Counter[str]] = {}
    kinds: Counter[str] = Counter()
    bad: list[dict[str, Any]] = []
    slowest: list[tuple[float, int, str, str]] = []
    resident: list[float] = []
    peak, began, ended = (0.0, 0, ""), time.monotonic(), 0
    for done, number in enumerate(range(options.first, options.first + options.cases), 1):
        if time.monotonic() - began > 60 * options.minutes:
            break
        ended = done
        outcome = worker.ask(number)
        if isinstance(outcome, str):
            bad.append({"case": number, "what": outcome})
            print(f"case {number}: {outcome}", file=sys.stderr, flush=True)
            continue
        kinds[outcome.kind] += 1
        for way, what in outcome.by_way.items():
            counts.setdefault(way, Counter())[what] += 1
        if outcome.error:
            bad.append({"case": number, "what": outcome.error.strip().splitlines()[-1]})
            print(f"case {number}: {outcome.error}", file=sys.stderr, flush=True)
        slowest = sorted([*slowest, (outcome.seconds, number, outcome.kind, outcome.slowest_way)], reverse=True)[:5]
        peak = max(peak, (outcome.peak, number, outcome.kind))
        if done % 2000 == 0:
            resident.append(round(outcome.resident))
            rate = done / (time.monotonic() - began)
            print(f"{done:,} cases, {rate:.0f}/s, {outcome.resident:.0f} MiB", file=sys.stderr, flush=True)
    worker.end()
    return {
        "cases": ended,
        "bad": bad,
        "outcomes": {way: dict(found.most_common()) for way, found in counts.items()},
        "kinds": dict(kinds.most_common()),
        "slowest": [
            {"seconds": round(s, 3), "case": number, "kind": kind, "way": way} for s, number, kind, way in slowest
        ],
        "peak_mib": {"mib": round(peak[0], 1), "case": peak[1], "kind": peak[2]},
        "resident_mib_by_2000_cases": resident,
        "workers_started": worker.started,
        "seconds": round(time.monotonic() - began, 1),
    }


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=600.0, help="after which no further case is begun")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=Path, help="folder of real images, used beside the generated ones")
    parser.add_argument("--most", type=int, default=200, help="real images that are used")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds of a CPU for one case, all ways together")
    parser.add_argument("--asan", action="store_true", help="the C code alone, under the address sanitizer")
    parser.add_argument("--case", type=int, help="run this case alone, here; its bytes are kept as a file")
    parser.add_argument("--out", type=Path, help="file for the result, beside that of the other mode")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser


def _numbered(path: Path) -> Iterator[tuple[str, Any]]:
    """The outcome that an earlier run of the other mode wrote."""
    if path.exists():
        yield from json.loads(path.read_text()).items()


def main() -> int:
    """Fuzz, print, and keep the result."""
    import tempfile

    options = arguments().parse_args()
    if options.worker:
        work(options.worker, options.seed, options)
        return 0
    if options.case is not None:
        files = seeds(options.images, options.most, np.random.default_rng(options.seed))
        data = case(options.case, options.seed, files)
        path = Path(tempfile.gettempdir(), f"case-{options.case}.bin")
        path.write_bytes(data)
        print(json.dumps({"file": str(path)} | _outcome(options.case, data, ways(options.asan))._asdict()))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(options, Path(folder))
    from pipelines.provenance import git_commit
    from resnet.host.hardware import describe_hardware

    places = {str(options.images), str(options.out)}
    words = [f"{w} PLACE" if w in ("--images", "--out") else w for w in sys.argv[1:] if w not in places]
    found |= {"command": f"python benchmarks/reliability/fuzz_images.py {' '.join(words)}"}
    found |= {"commit": git_commit(), "hardware": describe_hardware()}
    if options.out:
        kept = dict(_numbered(options.out)) | {"asan" if options.asan else "all": found}
        options.out.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(found))
    return 1 if found["bad"] else 0


if __name__ == "__main__":
    sys.exit(main())
