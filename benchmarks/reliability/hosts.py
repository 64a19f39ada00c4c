"""Jobs on the hosts that users have, and what they leave: each case works or is one sentence, nothing stays behind.

    python benchmarks/reliability/hosts.py [--only PATTERN] [--out results/hosts.json] [--list]

hosts: a user without passwd entry and HOME, a proxy, odd, long, read-only and noexec temporary folders, a CPU quota, no
network, little shared memory, few open files, a checkout of another user, a path with spaces. heads: Ray's that was
started before, with and without a token, with right, wrong and missing variables. ends: every job ended by SIGHUP,
SIGTERM, SIGKILL and by Ctrl-C twice, at its start and in the middle; then processes with the case's mark, ports that
they listen on and temporary folders are looked for, and once more after the next start of a job.

Needs root for what only root can pretend (cases that need it are skipped, and told). The last line of stdout is JSON;
exit status 1 where a case failed.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
MARK = "RESNET_CASE"  # environment variable by which a case's processes are found
PYTHON = str(Path(sys.executable))
TRAIN = [PYTHON, "jobs/train_imagenet.py", "cifar10-resnet8", "--recipe.epochs", "1"]
# What every job does first, and ends with its sentence
SAY = "from pipelines import command_line; from pipelines.cluster import connection as c; "
SAY += "command_line.run_job(lambda _: c.connect())"
CONNECT = [PYTHON, "-c", SAY]
LONGER = [PYTHON, "jobs/train_imagenet.py", "cifar10-resnet20", "--recipe.epochs", "200"]
STRANGER = (
    "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
)
CACHES = ("resnet-cache-", "torchinductor_")  # compiled code, kept on purpose: ours and torch's
GRACE = 20.0  # seconds in which what a job has left must be gone


@dataclass
class Case:
    """A command on a host. says: pattern of its standard error; status: its exit status."""

    name: str
    command: Sequence[str]
    status: int = 0
    says: str = ""
    prefix: Sequence[str] = ()
    variables: dict[str, str] = field(default_factory=dict)
    without: Sequence[str] = ()
    cwd: Path = ROOT
    within: float = 240.0
    leaves: bool = False  # kill -9 leaves its folder, until the next start
    end: Callable[[subprocess.Popen[str], Case], None] | None = None
    needs: str = ""


class Host:
    """A place for cases: a home, a temporary folder with a short name, and a mark."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="h-", dir="/tmp"))
        self.folder.chmod(0o777)
        self.temporary = self.folder / "t"
        self.temporary.mkdir(mode=0o777)
        self.temporary.chmod(0o777)
        self.mark = uuid.uuid4().hex
        self.homes = 0

    def environment(self, case: Case) -> dict[str, str]:
        """That of a person who has set nothing, with the case's variables and the mark."""
        dropped = ("RAY_", "RESNET_", "MLFLOW_", "TMPDIR")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        self.homes += 1
        home = self.folder / f"home-{self.homes}"  # in a used one a run is finished already
        kept |= {"HOME": str(self.folder), "RESNET_HOME": str(home), "TMPDIR": str(self.temporary)}
        kept |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", MARK: self.mark, **case.variables}
        return {name: value for name, value in kept.items() if name not in case.without}

    def processes(self) -> list[psutil.Process]:
        """Those that carry the mark."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def there(self) -> tuple[dict[int, psutil.Process], set[str]]:
        """Processes with the mark, and temporary folders but caches."""
        folders = {path.name for path in self.temporary.iterdir() if not path.name.startswith(CACHES)}
        return {process.pid: process for process in self.processes()}, folders

    def left(self, before: tuple[dict[int, psutil.Process], set[str]]) -> dict[str, list[str]]:
        """The remains of a job: processes, what they listen on, and temporary folders. before: a head that runs."""
        deadline = time.monotonic() + GRACE
        while new := [each for pid, each in self.there()[0].items() if pid not in before[0]]:
            # idle workers of a head that runs are its own
            new = [each for each in new if not (before[0] and _is_worker(each))]
            if not new or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        told, ports = [], []
        for process in new:
            with contextlib.suppress(psutil.Error):
                told.append(" ".join(process.cmdline())[:120])
                listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
                ports += [f"{c.laddr.ip}:{c.laddr.port}" for c in listening]
        return {"processes": told, "ports": ports, "folders": sorted(self.there()[1] - before[1])}

    def close(self) -> None:
        """End what is left, and remove all."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return "ray::" in " ".join(process.cmdline()) or "default_worker" in " ".join(process.cmdline())
    return True


def sentence(stderr: str) -> str:
    """The last line of standard error that says something."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def run(case: Case, host: Host) -> dict[str, Any]:
    """One case: what went wrong in words, or an empty list."""
    began, pipe, before = time.monotonic(), subprocess.PIPE, host.there()
    process = subprocess.Popen(
        [*case.prefix, *case.command], env=host.environment(case), cwd=case.cwd, stdout=pipe, stderr=pipe, text=True,
        start_new_session=True,
    )  # fmt: skip
    if case.end is not None:
        case.end(process, case)
    try:
        out, err = process.communicate(timeout=case.within)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += "\n(killed by the benchmark: too long)"
    seconds = time.monotonic() - began
    left = host.left(before)
    wrong = []
    if process.returncode != case.status:
        wrong.append(f"status {process.returncode}, expected {case.status}")
    if not re.search(case.says, err):
        wrong.append(f"says {sentence(err)!r}, expected {case.says!r}")
    if case.status == 2 and ("Traceback" in err or len(err.strip().splitlines()) > 8):
        wrong.append(f"{len(err.strip().splitlines())} lines for a mistake")
    if case.status == 0 and not out.strip().splitlines()[-1:][:1]:
        wrong.append("no outcome")
    expected = {"processes", "ports"} if case.leaves else {"processes", "ports", "folders"}
    wrong += [f"left {name}: {left[name]}" for name in sorted(expected) if left[name]]
    if case.leaves and not wrong:
        follower = [
            PYTHON,
            "-c",
            "from resnet.host.temporary_folder import own_folder; own_folder('resnet-'); own_folder('rs-')",
        ]
        subprocess.run(follower, env=host.environment(case), cwd=ROOT, check=True)
        if folders := host.left(before)["folders"]:
            wrong.append(f"left after the next start: {folders}")
    found = {"case": case.name, "seconds": round(seconds, 1), "status": process.returncode, "wrong": wrong}
    return found | {"said": sentence(err)[:300]} | ({"stderr": err[-3000:]} if wrong else {})


# --- Hosts ---


@contextlib.contextmanager
def cgroup(cores: float) -> Iterator[list[str]]:
    """A prefix that runs a command in a control group with a quota."""
    first = Path("/sys/fs/cgroup/cpu")
    old = (first / "cpu.cfs_quota_us").exists()
    folder = (first if old else first.parent) / f"resnet-hosts-{uuid.uuid4().hex[:6]}"
    folder.mkdir()
    try:
        quota = int(cores * 100_000)
        (folder / ("cpu.cfs_quota_us" if old else "cpu.max")).write_text(f"{quota}" if old else f"{quota} 100000")
        yield ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
    finally:
        for _ in range(40):
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.5)


def mounted(kind: str, options: str, place: str) -> list[str]:
    """A prefix that runs a command with something mounted, for this command alone."""
    return ["unshare", "--mount", "sh", "-c", f'mount -t {kind} -o {options} none {place} && exec "$@"', "sh"]


def hosts(host: Host) -> Iterator[Case]:
    """Cases of machines and users."""
    stranger, root = STRANGER.split(), "root"
    yield Case("plain", TRAIN)
    yield Case("no passwd entry, no HOME", TRAIN, prefix=stranger, without=["HOME"], needs=root)
    yield Case("no passwd entry, HOME=/", TRAIN, prefix=stranger, variables={"HOME": "/"}, needs=root)
    yield Case(
        "no passwd entry, no HOME, no RESNET_HOME", TRAIN, 2, "RESNET_HOME must name a folder: this user has no home",
        prefix=stranger, without=["HOME", "RESNET_HOME"], needs=root,
    )  # fmt: skip
    yield Case(
        "no passwd entry, HOME=/ and no RESNET_HOME", TRAIN, 2, "RESNET_HOME must name a folder that this user can",
        prefix=stranger, variables={"HOME": "/"}, without=["RESNET_HOME"], needs=root,
    )  # fmt: skip
    proxy = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    yield Case("http_proxy", TRAIN, variables=proxy)
    submit = [PYTHON, "-m", "pipelines.cluster", "--", "python", *TRAIN[1:]]
    yield Case("http_proxy, submitted", submit, variables=proxy)
    yield Case("submitted", submit)
    for name in ("with space", "größe", "l" * 100):
        folder = host.folder / name
        folder.mkdir()
        yield Case(f"TMPDIR {name[:12]}", TRAIN, variables={"TMPDIR": str(folder)})
    yield Case("TMPDIR missing", TRAIN, variables={"TMPDIR": "/nowhere"})
    ro = host.folder / "ro"
    ro.mkdir()
    yield Case(
        "TMPDIR read-only", TRAIN, prefix=mounted("tmpfs", "ro", str(ro)), variables={"TMPDIR": str(ro)}, needs=root
    )
    yield Case(
        "TMPDIR noexec", TRAIN, prefix=mounted("tmpfs", "noexec", str(ro)), variables={"TMPDIR": str(ro)}, needs=root
    )
    without = [PYTHON, f"{ROOT}/jobs/train_imagenet.py", *TRAIN[2:]]
    closed = 'for d in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o ro none $d; done; exec "$@"'
    yield Case(
        "no temporary folder at all", without, 2, "TMPDIR must name a folder",
        prefix=["unshare", "--mount", "sh", "-c", closed, "sh"], without=["TMPDIR"],
        variables={"RESNET_HOME": str(ROOT.parent / ".hosts-home")}, needs=root,
    )  # fmt: skip
    with cgroup(0.5) as prefix:
        yield Case(
            "quota of half a core",
            TRAIN,
            says="1 worker on 1 node, each with .* and 1 thread;",
            prefix=prefix,
            needs=root,
        )
    with cgroup(1.5) as prefix:
        yield Case(
            "quota of a core and a half",
            TRAIN,
            says="1 worker on 1 node, each with .* and 1 thread;",
            prefix=prefix,
            needs=root,
        )
    yield Case(
        "taskset to one core",
        TRAIN,
        says="1 worker on 1 node, each with .* and 1 thread;",
        prefix=["taskset", "-c", "0"],
    )
    offline = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    yield Case("no network", TRAIN, prefix=offline, needs=root)
    yield Case("no network, submitted", submit, prefix=offline, needs=root)
    yield Case("64 MiB of shared memory", TRAIN, prefix=mounted("tmpfs", "size=64m", "/dev/shm"), needs=root)
    yield Case("256 open files", TRAIN, prefix=["sh", "-c", 'ulimit -n 256 && exec "$@"', "sh"])
    yield Case("a locale without UTF-8", TRAIN, variables={"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0"})
    yield Case("another user's Ray in /tmp/ray", TRAIN, prefix=stranger, needs=root)
    yield from spaces(host)


def spaces(host: Host) -> Iterator[Case]:
    """A checkout and its environment in a folder with spaces."""
    place = host.folder / "my project"
    words = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in words:
        if name.startswith(("resnet", "pipelines", "serve", "jobs", "pyproject")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", place / ".venv"], check=True)
    (packages,) = (place / ".venv" / "lib").glob("python*/site-packages")
    (here,) = [path for path in sys.path if path.endswith("site-packages") and ".venv" in path][:1]
    (packages / "shared.pth").write_text(f"{here}\n")
    shared = {"PYTHONPATH": str(place)}
    yield Case("path with spaces", [str(place / ".venv" / "bin" / "python"), *TRAIN[1:]], cwd=place, variables=shared)


# --- Heads ---


def heads(host: Host) -> Iterator[Case]:
    """A Ray that somebody has started before."""
    ray = [PYTHON, "-m", "ray.scripts.scripts"]
    yield Case(
        "auto without a head",
        CONNECT,
        2,
        "RAY_ADDRESS=auto asks for the Ray",
        variables={"RAY_ADDRESS": "auto"},
        within=30,
    )
    (host.temporary / "ray").mkdir()
    (host.temporary / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
    stale = {"RAY_ADDRESS": "auto"}
    yield Case("auto beside a stale note", CONNECT, 2, "the one at 127.0.0.1:1 has ended", variables=stale, within=30)
    shutil.rmtree(host.temporary / "ray")
    for given in (
        "",
        "ray://127.0.0.1:10001",
        "10.0.0.5",
        "192.0.2.1:6379",
        "nobody.invalid:6379",
        "http://127.0.0.1:1",
    ):
        status, says = (0, "") if not given else (2, f"RAY_ADDRESS={re.escape(given)} ")
        yield Case(
            f"RAY_ADDRESS={given}",
            CONNECT,
            status,
            says,
            variables={"RAY_ADDRESS": given},
            within=120 if not given else 30,
        )
    start = [
        "start",
        "--head",
        "--port",
        "6390",
        "--dashboard-port",
        "8290",
        "--num-cpus",
        "2",
        "--disable-usage-stats",
    ]
    submit = [PYTHON, "-m", "pipelines.cluster", "--", "python", *CONNECT[1:]]
    literal = [*ray, "job", "submit", "jobs/train_imagenet.py"]
    for token in (False, True):
        if token:
            (host.folder / ".ray").mkdir()
            (host.folder / ".ray" / "auth_token").write_text("a" * 64)
        name = "with a token" if token else "without a token"
        environment = host.environment(Case("", []))
        environment["PATH"] = f"{Path(PYTHON).parent}:{environment['PATH']}"
        subprocess.run([*ray, *start], env=environment, cwd=ROOT, check=True, capture_output=True)
        try:
            yield Case(f"head {name}: a job", CONNECT)
            yield Case(f"head {name}: auto", CONNECT, variables={"RAY_ADDRESS": "auto"})
            yield Case(f"head {name}: submitted", submit)
            yield Case(f"head {name}: submitted by http", submit, variables={"RAY_ADDRESS": "http://127.0.0.1:8290"})
            yield Case(
                f"head {name}: a job by http",
                CONNECT,
                2,
                "is where jobs are submitted",
                variables={"RAY_ADDRESS": "http://127.0.0.1:8290"},
            )
            if token:
                yield Case(
                    "head with a token: RAY_AUTH_MODE=token, ray job submit",
                    literal,
                    variables={"RAY_AUTH_MODE": "token"},
                    within=400,
                )
                yield Case(
                    "head with a token: disabled here",
                    CONNECT,
                    2,
                    "asks for a token, and RAY_AUTH_MODE=disabled",
                    variables={"RAY_AUTH_MODE": "disabled"},
                )
                yield Case(
                    "head with a token: a wrong one",
                    CONNECT,
                    2,
                    "asks for another token than that of RAY_AUTH_TOKEN",
                    variables={"RAY_AUTH_TOKEN": "b" * 64},
                )
                yield Case(
                    "head with a token: none here",
                    CONNECT,
                    2,
                    "asks for a token: set RAY_AUTH_TOKEN_PATH",
                    variables={"HOME": "/nowhere"},
                )
                yield Case(
                    "head with a token: submitted, a wrong one",
                    submit,
                    2,
                    "asks for another token",
                    variables={"RAY_AUTH_TOKEN": "b" * 64, "RAY_ADDRESS": "http://127.0.0.1:8290"},
                )
            else:
                yield Case("head without a token: ray job submit", literal, within=400)
                yield Case(
                    "head without a token: RAY_AUTH_MODE=token here",
                    CONNECT,
                    0,
                    "",
                    variables={"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64},
                )
        finally:
            stop_head(host)


def stop_head(host: Host) -> None:
    """End the head and all that it started; `ray stop` would end every Ray of the machine."""
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        for process in host.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(wanted)
        time.sleep(5)
    shutil.rmtree(host.temporary / "ray", ignore_errors=True)


# --- Ends ---


def ending(moment: str, *signals: int, group: bool = False) -> Callable[[subprocess.Popen[str], Case], None]:
    """Send signals to a job's process, or its group as a terminal does: so many seconds after it began, or when it says
    something."""

    def end(process: subprocess.Popen[str], case: Case) -> None:
        if moment.replace(".", "").isdigit():
            time.sleep(float(moment))
        else:
            assert process.stderr is not None
            deadline = time.monotonic() + 120
            while time.monotonic() < deadline and not re.search(moment, process.stderr.readline()):
                pass
        for i, number in enumerate(signals):
            if i:
                time.sleep(0.7)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number) if group else process.send_signal(number)

    return end


def ends(host: Host) -> Iterator[Case]:
    """Every job, ended in every way."""
    made = host.folder / "made"
    trained = {
        "RESNET_HOME": str(host.folder / "trained")
    }  # what evaluates, predicts and serves finds a champion there
    environment = host.environment(Case("", [], variables=trained))
    subprocess.run(TRAIN, env=environment, cwd=ROOT, check=True, capture_output=True)
    images = host.folder / "images"
    images.mkdir()
    many_images(images)
    jobs: dict[str, tuple[list[str], str]] = {
        "train": (LONGER, "img/s"),
        "train, submitted": ([PYTHON, "-m", "pipelines.cluster", "--", "python", *LONGER[1:]], "img/s"),
        "sweep": ([PYTHON, "jobs/sweep_paper.py", "figure1", "--seeds", "0", "--recipe.epochs", "50"], "cifar10"),
        "search": (
            [PYTHON, "jobs/search_recipe.py", "cifar10-resnet8", "--trials", "4", "--recipe.epochs", "20"],
            "trial|cifar10",
        ),
        "evaluate": ([PYTHON, "jobs/evaluate_model.py", "resnet@champion", "--protocol", "multi-scale"], ""),
        "prepare": ([PYTHON, "jobs/write_shards.py", "--source.path", str(images), "--val-share", "0.2"], "img/s"),
        "predict": (
            [PYTHON, "jobs/predict_images.py", "resnet@champion", "--images", str(images), "--out", str(made / "p")],
            "",
        ),
        "deploy": ([PYTHON, "jobs/deploy_best.py", "--port", "8791"], "curl"),
    }
    ways: dict[str, tuple[tuple[int, ...], bool]] = {
        "SIGHUP": ((signal.SIGHUP,), False),
        "SIGTERM": ((signal.SIGTERM,), False),
        "SIGKILL": ((signal.SIGKILL,), False),
        "Ctrl-C twice": ((signal.SIGINT, signal.SIGINT), True),
    }
    for name, (command, running) in jobs.items():
        for way, (signals, group) in ways.items():
            for moment in ("6", running or "12"):
                when = "at its start" if moment == "6" else "in the middle"
                killed = signals == (signal.SIGKILL,)
                more = ["--out", str(made / f"{way} {when}")] if name == "prepare" else []  # else it is done already
                yield Case(
                    f"{name}: {way} {when}", command + more, -9 if killed else ANY, leaves=killed,
                    variables=trained if name in ("evaluate", "predict", "deploy") else {},
                    end=ending(moment, *signals, group=group), within=120,
                )  # fmt: skip


ANY = 10**6  # any exit status: the job may have ended before


def many_images(folder: Path) -> None:
    """Small pictures of two classes, enough for some seconds of work."""
    import numpy as np
    from PIL import Image

    for i in range(6000):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        (folder / f"class-{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class-{i % 2}" / f"{i}.png")


def _result(case: Case, host: Host) -> dict[str, Any]:
    """The result of a case, which is told too. Where any status will do, only what is left behind counts."""
    result = run(case, host)
    if case.status == ANY:
        result["wrong"] = [text for text in result["wrong"] if not text.startswith(("status", "no outcome"))]
    state = "WRONG" if result["wrong"] else "ok   "
    line = f"{state} {result['seconds']:6.1f} s  {case.name}  {result['wrong'] or ''}"
    print(line, file=sys.stderr, flush=True)
    return result


def main() -> None:
    """Run the cases whose name fits, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="cases by shell pattern, e.g. 'ends/train*'")
    parser.add_argument("--out", help="file for the result, too")
    parser.add_argument("--list", action="store_true", help="name the cases, run none")
    asked = parser.parse_args()
    found: list[dict[str, Any]] = []
    for group in (hosts, heads, ends):
        if not fnmatch.fnmatch(group.__name__, asked.only.partition("/")[0]):
            continue
        host = Host()
        try:
            for case in group(host):
                name = f"{group.__name__}/{case.name}"
                if not fnmatch.fnmatch(name, asked.only if "/" in asked.only else f"{asked.only}/*"):
                    continue
                if asked.list:
                    print(name)
                elif case.needs == "root" and os.getuid() != 0:
                    print(f"skip  {name}: needs root", file=sys.stderr)
                else:
                    found.append(_result(case, host) | {"case": name})
        finally:
            host.close()
    if asked.list:
        return
    failed = [result["case"] for result in found if result["wrong"]]
    line = json.dumps({"cases": len(found), "failed": failed, "results": found})
    if asked.out:
        Path(asked.out).write_text(json.dumps(json.loads(line), indent=1) + "\n")
    print(line)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
