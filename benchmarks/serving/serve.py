"""The endpoint against the bare model and other servers: real JPEGs, 1 to 128 connections, one core for each server.

    make bench-peers                          LitServe, into .venv-peers
    python benchmarks/serving/serve.py                ResNet-18 and ResNet-50, 3 rounds, about 20 minutes
    python benchmarks/serving/serve.py --network imagenet-resnet18 --rounds 1 --seconds 3
    python benchmarks/serving/serve.py --cores 2 --connections 64      all of them on two cores, the client too

bare is the limit: decode and classify in a loop of one process and one thread. fastapi is FastAPI and uvicorn with the
same classifier and a batcher of twenty lines. ours is jobs/deploy_best.py as it is: Ray Serve behind HAProxy, with all
of Ray's own processes on the same core. What is not ours runs twice, in batches of 8 and of 16 (--batches): which is
faster depends on the network. Ratios are to the faster bare loop.

Servers have one core, the client the other. With --cores each server has so many to itself, a network a core (bare
loops, threads, workers or replicas), and shares them with the client. Contenders take turns at each number of
connections; those that are not measured are stopped (SIGSTOP), so that none pays for another. Ratios are taken round by
round; medians and spread are printed. On a machine with other work read the ratio of CPU seconds a request: what one
full core can do. The networks are untrained. The last line of stdout is JSON, the rest is on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "benchmarks" / "serving"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
UNPACK = ROOT.parent / "shared" / "data" / "unpack.py"
CONTENDERS = {"bare": sys.executable, "fastapi": sys.executable, "litserve": str(PEERS_PYTHON), "ours": sys.executable}
BATCHES = 8, 16
SECONDS = {1: 1.0, 8: 1.5, 32: 2.0, 64: 2.0, 128: 3.0}  # times --seconds, measured at so many connections
WARM = {1: 2.0, 8: 2.0, 32: 4.0, 64: 4.0, 128: 6.0}  # seconds before them: a server that was stopped has work left over
SATURATED = 32  # connections a core


def write_checkpoint(network: str, folder: Path) -> Path:
    """An untrained network of 1,000 classes as a checkpoint."""
    import torch

    from resnet.image_class import ImageClass
    from resnet.networks.resnet import build
    from resnet.recipes.named import recipe
    from resnet.training.checkpoint import Checkpoint, Progress, save_checkpoint

    torch.manual_seed(0)
    chosen = recipe(network)
    classes = tuple(ImageClass(id=i, wnid=f"n{i:08d}", name=f"class {i}") for i in range(1000))
    pixels = {"mean": torch.full((3, 1, 1), 120.0), "std": torch.full((3, 1, 1), 60.0)}
    run = {"recipe": chosen.model_dump(mode="json"), "seed": 0}
    progress = Progress(step=1, total_steps=1, examples=1, classes=classes)
    save_checkpoint(folder / network, Checkpoint(build(chosen.network, 1000).state_dict(), {}, pixels, run, progress))
    return folder / network


class Server:
    """A contender's process and all that it started."""

    def __init__(
        self, name: str, batch: int, cores: int, checkpoint: Path, images: Path, port: int, extra: list[str]
    ) -> None:
        self.name, self.batch, self.cores, self.port = name, batch, cores, port
        self.label = name if name == "ours" else f"{name}-{batch}"
        self.path = "/v1/predict" if name == "ours" else "/predict"
        common = [str(checkpoint), "--port", str(port), "--batch", str(batch), "--cores", str(cores)]
        own = [str(HERE / "serve_contenders.py"), name, *common, "--images", str(images)]
        lit = [str(HERE / "serve_litserve.py"), *common]
        job = [str(ROOT / "jobs" / "deploy_best.py"), "--checkpoint", str(checkpoint), "--port", str(port)]
        job += ["--min-replicas", str(cores), "--max-replicas", str(cores), *extra]
        command = [CONTENDERS[name], *{"ours": job, "litserve": lit}.get(name, own)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "RESNET_HOME": str(checkpoint.parent)}
        self.log = checkpoint.parent / f"{checkpoint.name}-{self.label}.log"
        with self.log.open("w") as log:
            # Not here: in benchmarks/ the name serve is this file, for Ray's workers too.
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
            self.process = subprocess.Popen(command, env=environment, cwd=ROOT, **pipes)

    def ready(self, image: bytes) -> bool:
        """True if it classifies, in the end. If not, its own words are printed."""
        deadline = time.monotonic() + 180
        while self.name != "bare" and time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.path}", image, timeout=30).read()
                return True
            time.sleep(0.3)
        if self.name != "bare":
            print(f"{self.label} is left out: {self.log.read_text()[-1500:]}", file=sys.stderr)
        return self.name == "bare"

    def tree(self) -> list[psutil.Process]:
        """The process and its descendants."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def pin(self) -> None:
        """Keep every thread on the first cores."""
        for process in self.tree():
            for thread in process.threads():
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(thread.id, range(self.cores))

    def signal(self, number: int) -> None:
        """To all of them."""
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def cpu(self) -> float:
        """CPU seconds of all of them."""
        total = 0.0
        for process in self.tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:2])
        return total

    def end(self) -> None:
        """Ask it to end as a person would, and insist."""
        self.signal(signal.SIGCONT)
        started = self.tree()
        self.process.send_signal(signal.SIGTERM if self.name == "litserve" else signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def measure(self, images: Path, connections: int, seconds: float) -> dict[str, Any]:
        """One turn: requests a second, latencies, errors."""
        if self.name == "bare":
            assert self.process.stdin
            assert self.process.stdout
            print(min(self.batch, connections), seconds, file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        url = f"http://127.0.0.1:{self.port}{self.path}"
        words = [
            url,
            "--images",
            images,
            "--connections",
            connections,
            "--warm",
            WARM[connections],
            "--seconds",
            seconds,
        ]
        place = "1" if self.cores == 1 else f"0-{self.cores - 1}"
        command = ["taskset", "-c", place, sys.executable, HERE / "serve_load.py", *words]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])


@contextlib.contextmanager
def servers(asked: argparse.Namespace, checkpoint: Path, images: Path) -> Iterator[list[Server]]:
    """All contenders, each ready, pinned and stopped."""
    sys.path.insert(0, str(ROOT))
    from serve.haproxy.environment import free_ports

    image = next(images.rglob("*.JPEG")).read_bytes()
    names = [name for name in CONTENDERS if name in {"bare", *asked.only} and Path(CONTENDERS[name]).exists()]
    kinds = [(name, batch) for name in names for batch in (asked.batches[:1] if name == "ours" else asked.batches)]
    extra = [word if i % 2 else f"--{word}" for i, word in enumerate(asked.ours)]
    ports = free_ports(len(kinds))
    place = asked.cores, checkpoint, images
    started = [Server(*kind, *place, port, extra) for kind, port in zip(kinds, ports, strict=True)]
    try:
        running = [server for server in started if server.ready(image)]
        time.sleep(3)  # HAProxy has the replica, and no longer Serve's own proxy
        for server in running:
            server.pin()
            server.signal(signal.SIGSTOP)
        yield running
    finally:
        for server in started:
            server.end()


def turns(running: list[Server], images: Path, asked: argparse.Namespace) -> dict[int, dict[str, list[dict[str, Any]]]]:
    """Connections -> contender -> one row a round, the contenders in another order each time.

    Where there are no more connections than the smallest batch holds, larger ones are the same and left out.
    """
    least = min(asked.batches)
    taking = {c: [s for s in running if s.name == "ours" or s.batch == least or c > least] for c in asked.connections}
    rows: dict[int, dict[str, list[dict[str, Any]]]] = {c: {s.label: [] for s in taking[c]} for c in taking}
    for turn in range(asked.rounds):
        for place, (connections, part) in enumerate(taking.items()):
            shift = (turn + place) % len(part)
            for server in part[shift:] + part[:shift]:
                server.signal(signal.SIGCONT)
                before = server.cpu()
                row = server.measure(images, connections, SECONDS[connections] * asked.seconds)
                row["cpu_ms"] = (server.cpu() - before) * 1000 / max(1, row["answered"])
                server.signal(signal.SIGSTOP)
                rows[connections][server.label].append(row)
                shown = f"{connections:4d} {server.label:11} {json.dumps(row)}"
                print(f"  {turn + 1}/{asked.rounds} {shown}", file=sys.stderr)
    return rows


def table(rows: dict[int, dict[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """One line for each contender and number of connections, with its share of bare's rate in the same round.

    Bare is the one of its batches that is faster in the median.
    """
    lines = []
    for connections, by_name in rows.items():
        bares = [turns_of_it for name, turns_of_it in by_name.items() if name.startswith("bare-")]
        limits = max(bares, key=lambda turns_of_it: statistics.median(row["per_second"] for row in turns_of_it))
        for name, turns_of_it in by_name.items():
            line: dict[str, Any] = {"connections": connections, "server": name}
            for key in ("per_second", "p50", "p99", "cpu_ms"):
                line[key] = round(statistics.median(row[key] for row in turns_of_it), 2)
            line["errors"] = sum(sum(row.get("errors", {}).values()) for row in turns_of_it)
            pairs = list(zip(turns_of_it, limits, strict=True))
            shares = [row["per_second"] / limit["per_second"] for row, limit in pairs]
            line["of_bare"] = round(statistics.median(shares), 3)
            line["of_bare_spread"] = [round(min(shares), 3), round(max(shares), 3)]
            line["of_bare_cpu"] = round(statistics.median(limit["cpu_ms"] / row["cpu_ms"] for row, limit in pairs), 3)
            line["over_bare_ms"] = round(statistics.median(row["p50"] - limit["p50"] for row, limit in pairs), 2)
            lines.append(line)
    return lines


def show(network: str, lines: list[dict[str, Any]]) -> None:
    """The table for a person."""
    print(
        f"\n{network}\nconnections  server       req/s     p50     p99  cpu ms  errors  of bare (spread)  in CPU",
        file=sys.stderr,
    )
    for line in lines:
        low, high = line["of_bare_spread"]
        over = f"  {line['over_bare_ms']:+.2f} ms" if line["connections"] == 1 else ""
        print(
            f"{line['connections']:11d}  {line['server']:11}{line['per_second']:7.1f}"
            f"{line['p50']:8.1f}{line['p99']:8.1f}{line['cpu_ms']:8.2f}"
            f"{line['errors']:8d}  {line['of_bare']:.3f} ({low:.3f}-{high:.3f})   {line['of_bare_cpu']:.3f}{over}",
            file=sys.stderr,
        )


def claims(network: str, lines: list[dict[str, Any]], saturated: int) -> dict[str, float]:
    """The figures that issue 6 asks for. saturated: connections."""
    short, found = network.partition("-")[2], {(line["connections"], line["server"]): line for line in lines}
    out = {}
    if (saturated, "ours") in found:
        out[f"of_bare_{short}"] = found[saturated, "ours"]["of_bare"]
        out[f"of_bare_cpu_{short}"] = found[saturated, "ours"]["of_bare_cpu"]
        peers = [
            line["per_second"]
            for (c, name), line in found.items()
            if c == saturated and name != "ours" and not name.startswith("bare-")
        ]
        if peers:
            out[f"over_best_peer_{short}"] = round(found[saturated, "ours"]["per_second"] / max(peers), 3)
    if (1, "ours") in found:
        out[f"over_bare_ms_{short}"] = found[1, "ours"]["over_bare_ms"]
    return out


def find_images(given: Path | None, folder: Path) -> Path:
    """JPEGs as given, or Imagenette's validation images beside the project, unpacked. ValueError: neither."""
    if given is not None:
        if next(given.rglob("*.JPEG"), None) is None:
            raise ValueError(f"--images must be a folder with .JPEG files, got {given}")
        return given.resolve()
    if not UNPACK.exists():
        raise ValueError(f"--images must be given: {UNPACK} is not there")
    subprocess.run([sys.executable, UNPACK, folder, "imagenette"], check=True, stdout=sys.stderr)
    return folder / "imagenette" / "val"


def main() -> None:
    """Measure, print the tables and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    networks = ["imagenet-resnet18", "imagenet-resnet50"]
    parser.add_argument("--network", nargs="+", choices=networks, default=networks)
    parser.add_argument("--images", type=Path, help="folder of .JPEG files; Imagenette's validation images")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="beside bare")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="most images of a pass; not of ours")
    parser.add_argument("--cores", type=int, default=1, help="of each server, and networks side by side")
    parser.add_argument("--connections", nargs="+", type=int, choices=SECONDS, default=list(SECONDS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one turn at one connection; more at more")
    parser.add_argument("--ours", nargs="*", default=[], help="options of jobs/deploy_best.py, without their dashes")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from resnet.host.hardware import describe_hardware

    outcome: dict[str, Any] = {"hardware": describe_hardware(), "command": " ".join(sys.argv), "tables": {}}
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        images = find_images(asked.images, Path(folder))
        for network in asked.network:
            checkpoint = write_checkpoint(network, Path(folder))
            with servers(asked, checkpoint, images) as running:
                lines = table(turns(running, images, asked))
            show(network, lines)
            outcome["tables"][network] = lines
            outcome |= claims(network, lines, SATURATED * asked.cores)
    overheads = [value for key, value in outcome.items() if key.startswith("over_bare_ms_")]
    print(json.dumps(outcome | ({"over_bare_ms": max(overheads)} if overheads else {})))


if __name__ == "__main__":
    main()
