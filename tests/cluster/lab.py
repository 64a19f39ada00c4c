"""Several hosts on one machine: network namespaces behind a bridge, started by the very commands of cluster.yaml.

Each host has an address, processes, mounts, a temporary folder, shared memory, a home and a host name of its own. The
machine's files are read-only there, the virtual environment among them; the project is a copy of what cluster.yaml
brings to a node. The machine's own network is not touched: bridge and cables lie in a namespace that only the lab has.

Everything belongs to processes that die with the one that made the lab, also where that is killed (pdeathsig of the
switch and of each host's `unshare`, whose child is process 1 of the host; with it all processes of the host end).
What differs from `ray up`: no autoscaler (no AWS is asked), no ssh (commands run as root in the host's namespaces), and
setup.sh is not run: the environment is that of the tests.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent / "programs"
NET = "10.77.0"
ADDRESSES = {"head": 1, "w1": 11, "w2": 12, "w3": 13, "w4": 14, "s3": 20, "ml": 21, "client": 30}
MOST = 6  # hosts at once
DIES = ("setpriv", "--pdeathsig", "KILL")
TOKEN = "5ab1e" * 12
BUCKET = "bucket"  # README's
# What a machine of one's own would give: memory is not the host's here, and nothing asks for Ray's usage.
VARIABLES = {
    "HOME": "/home/ubuntu", "USER": "ubuntu", "LANG": "C.UTF-8", "TERM": "dumb",
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "RAY_memory_monitor_refresh_ms": "0",
}  # fmt: skip


def missing() -> str | None:
    """Why no lab can be built here, or None."""
    if os.geteuid() != 0:
        return "hosts of the lab need root, for namespaces and mounts"
    if lacks := [tool for tool in ("ip", "unshare", "nsenter", "setpriv") if shutil.which(tool) is None]:
        return f"{', '.join(lacks)} not found (Debian: iproute2 and util-linux)"
    tried = ["unshare", "--pid", "--fork", "--mount", "--uts", "--ipc", "--net", "mount", "-t", "proc", "proc", "/proc"]
    done = subprocess.run(tried, capture_output=True, text=True, timeout=30)
    return f"no namespaces: {done.stderr.strip()}" if done.returncode else None


def address(name: str) -> str:
    """Of a host."""
    return f"{NET}.{ADDRESSES[name]}"


class Job:
    """A command that runs in a host. Both streams go to files."""

    def __init__(self, host: Host, words: Sequence[str], log: Path) -> None:
        self.out, self.err, self.began = log.with_suffix(".out"), log.with_suffix(".err"), time.monotonic()
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [*DIES, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        self.host = host

    @property
    def stdout(self) -> str:
        return self.out.read_text()

    @property
    def text(self) -> str:
        """All that it printed."""
        return self.stdout + self.err.read_text()

    @property
    def status(self) -> int | None:
        return self.process.poll()

    def ended(self, seconds: float) -> int:
        """The exit status. AssertionError: it still runs."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not ended after {seconds:g} s:\n{self.text[-4000:]}") from None

    def done(self, seconds: float) -> str:
        """What it printed on stdout, once it ended well."""
        assert self.ended(seconds) == 0, f"status {self.status}\n{self.text[-6000:]}"
        return self.stdout

    def says(self, words: str, seconds: float) -> None:
        """Wait until it printed these words. AssertionError: it did not, or ended before."""
        wait(lambda: words in self.text or self.status is not None, seconds, lambda: self.text)
        assert words in self.text, f"status {self.status}, without {words!r}:\n{self.text[-4000:]}"


class Host:
    """A machine of the lab. disk: what it has written; nothing of it outlives a host that is booted anew."""

    def __init__(self, lab: Lab, name: str, disk: Path) -> None:
        self.lab, self.name, self.disk, self.address = lab, name, disk, address(name)
        self.jobs = 0
        self._boot()

    @property
    def hostname(self) -> str:
        return f"ip-{self.address.replace('.', '-')}"

    def _boot(self) -> None:
        for folder in ("home/.ray", "home/deep-residual-ray/.venv", "tmp"):
            (self.disk / folder).mkdir(parents=True)
        (self.disk / "tmp").chmod(0o1777)
        (self.disk / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.hostname}\n")
        mounts = self.lab.config["file_mounts"]
        for target, source in mounts.items():
            if target.startswith("/home/ubuntu/deep-residual-ray/"):
                self.bring(ROOT / source, target)
        token = self.disk / "home/.ray/auth_token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        spaces = [f"--{each}" for each in ("net", "pid", "mount", "uts", "ipc", "fork", "kill-child")]
        venv = os.path.realpath(sys.prefix)
        words = [*DIES, "unshare", *spaces, sys.executable, str(Path(__file__).with_name("host_init.py"))]
        with (self.disk / "init.log").open("w") as log:
            self._unshare = subprocess.Popen(
                [*words, str(self.disk), venv, self.hostname], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ready(self) -> None:
        """Wait until it is booted, and lay its cable; the client has none."""
        log = self.disk / "init.log"
        wait(lambda: "ready" in log.read_text() or self._unshare.poll() is not None, 30, log.read_text)
        assert self._unshare.poll() is None, log.read_text()
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text()
        self.init = int(children.split()[0])
        self._inside("link set lo up")
        if self.name == "client":  # it reaches the tunnel and nothing else
            return
        port = f"port-{self.name}"
        self.lab.ip(f"link add {port} type veth peer name eth0 netns {self.init}")
        self.lab.ip(f"link set {port} master switch up")
        for words in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", f"route add default via {NET}.254"):
            self._inside(words)

    def _inside(self, words: str) -> None:
        _checked(["nsenter", "-t", str(self.init), "-n", "ip", *words.split()])

    def bring(self, source: Path, target: str) -> None:
        """Copy a file or folder of this machine, as `ray up` does for file_mounts."""
        place = self.disk / "home" / Path(target).relative_to("/home/ubuntu")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            shutil.copy2(source, place)

    def words(self, command: str, **variables: str) -> list[str]:
        """A shell's command line, from outside."""
        given = [f"{name}={value}" for name, value in (VARIABLES | variables).items()]
        enter = ["nsenter", "-t", str(self.init), "-n", "-m", "-u", "-i", "-p", "--", "env", "-i", *given]
        return [*enter, "bash", "-c", f"cd ~; {command}"]

    def start(self, command: str, **variables: str) -> Job:
        """A command in the home folder, in the background."""
        self.jobs += 1
        return Job(self, self.words(command, **variables), self.disk / f"job-{self.jobs:02d}")

    def run(self, command: str, seconds: float = 60, **variables: str) -> str:
        """What a command printed, once it ended well."""
        return self.start(command, **variables).done(seconds)

    def python(self, words: str, **variables: str) -> Job:
        """A Python command in the project's folder, in the background, in the environment of a node."""
        return self.start(
            f"source deep-residual-ray/deploy/node.sh && exec env PYTHONPATH=. python {words}", **variables
        )

    def start_ray(self, cpus: int, seconds: float = 150) -> None:
        """Set up and start Ray by cluster.yaml's commands, one shell each as `ray up` has it."""
        self.starting_ray(cpus).done(seconds)

    def starting_ray(self, cpus: int) -> Job:
        """The same in the background."""
        kind = "head" if self.name == "head" else "worker"
        commands = [self.lab.config["setup_commands"][0], *self.lab.config[f"{kind}_start_ray_commands"]]
        # Ray's `ray up` says so by this variable what cluster.yaml's `resources` are
        variables = {"RAY_OVERRIDE_RESOURCES": f'{{"CPU": {cpus}}}', "RAY_HEAD_IP": address("head")}
        # the option makes Ray start its autoscaler, which would ask AWS
        plain = [each.replace("--autoscaling-config=~/ray_bootstrap_config.yaml", "") for each in commands]
        return self.start("set -e; " + "; ".join(f"bash -c {shlex.quote(each)}" for each in plain), **variables)

    def processes(self, *having: str) -> list[psutil.Process]:
        """Of this host, with these words in their command lines."""
        found = []
        with contextlib.suppress(OSError):
            mine = os.readlink(f"/proc/{self.init}/ns/pid")
            for process in psutil.process_iter():
                with contextlib.suppress(OSError, psutil.Error):
                    if os.readlink(f"/proc/{process.pid}/ns/pid") == mine and process.pid != self.init:
                        command = " ".join(process.cmdline())
                        if command and all(word in command for word in having):
                            found.append(process)
        return found

    def signal(self, number: signal.Signals, *having: str) -> int:
        """Send a signal to the processes with these words in their command lines; how many there were."""
        found = self.processes(*having)
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        return len(found)

    def cut(self) -> None:
        """Pull its cable: no process is told."""
        self.lab.ip(f"link set port-{self.name} down")

    def join(self) -> None:
        """Plug the cable in again."""
        self.lab.ip(f"link set port-{self.name} up")

    def power_off(self) -> None:
        """End it at once. The cable goes first, so that no other host hears of it."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.lab.ip(f"link delete port-{self.name}")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.init, signal.SIGKILL)
        self._unshare.wait(20)


class Lab:
    """A network with hosts on it. variables: what a user adds to `environment` in cluster.yaml."""

    def __init__(self, folder: Path, variables: Mapping[str, str] = {}) -> None:
        self.folder, self.hosts, self.boots = folder, dict[str, Host](), 0
        self._others = list[subprocess.Popen[bytes]]()
        text = (ROOT / "cluster.yaml").read_text().replace("s3://REPLACE", f"s3://{BUCKET}")
        more = "".join(f"\n    {name}={value}" for name, value in (S3 | dict(variables)).items())
        text = text.replace("\n    RESNET_IDLE_MINUTES=60", f"\n    RESNET_IDLE_MINUTES=60{more}")
        self.config: dict[str, Any] = yaml.safe_load(text)
        assert more.strip().split()[-1] in self.config["setup_commands"][0]
        self._switch = self._beside("unshare", "--net", "sleep", "infinity")
        mine = os.readlink("/proc/self/ns/net")
        wait(lambda: os.readlink(f"/proc/{self._switch.pid}/ns/net") != mine, 10)
        for words in ("link add switch type bridge", f"addr add {NET}.254/24 dev switch", "link set switch up"):
            self.ip(words)

    def ip(self, words: str) -> None:
        """A command of iproute2 in the switch's namespace."""
        _checked(["nsenter", "-t", str(self._switch.pid), "-n", "ip", *words.split()])

    def _beside(self, *words: str) -> subprocess.Popen[bytes]:
        log = (self.folder / "beside.log").open("ab")
        process = subprocess.Popen([*DIES, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._others.append(process)
        return process

    def boot(self, *names: str) -> list[Host]:
        """New machines, each in place of one that had its name and is off."""
        for name in names:
            if name in self.hosts:
                self.hosts[name].power_off()
        started = [Host(self, name, self.folder / f"{self._count():02d}-{name}") for name in names]
        self.hosts |= {host.name: host for host in started}
        assert len(self.hosts) <= MOST, f"{len(self.hosts)} hosts"
        for host in started:
            host.ready()
        return started

    def _count(self) -> int:
        self.boots += 1
        return self.boots

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def tunnel(self, port: int = 8265) -> subprocess.Popen[bytes]:
        """What `ray dashboard cluster.yaml` is: this port of the client's loopback is the head's."""
        socket = self.folder / f"tunnel-{self._count()}"
        program = [sys.executable, str(PROGRAMS / "forward.py")]
        into = ("nsenter", "-t", str(self["head"].init), "-n", *program, str(socket), str(port), "out")
        self._beside(*into)
        wait(socket.exists, 20)
        process = self._beside("nsenter", "-t", str(self["client"].init), "-n", *program, str(socket), str(port), "in")
        wait(lambda: self["client"].start(f"exec 3<>/dev/tcp/127.0.0.1/{port}").ended(5) == 0, 20)
        return process

    def close(self) -> None:
        """End everything."""
        for host in self.hosts.values():
            host.power_off()
        for process in self._others:
            process.kill()
            process.wait(10)


S3_PORT = 9000
S3 = {
    "AWS_ENDPOINT_URL": f"http://{address('s3')}:{S3_PORT}", "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip


@contextlib.contextmanager
def lab(folder: Path, variables: Mapping[str, str] = {}) -> Iterator[Lab]:
    """Within: a lab without hosts."""
    made = Lab(folder, variables)
    try:
        yield made
    finally:
        made.close()


def wait(true: Callable[[], object], seconds: float, told: Callable[[], str] = str) -> float:
    """Look until it is true, and say how long that took. AssertionError: it was not, with the end of what is told."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds:g} s: {told()[-4000:]}")
        time.sleep(0.1)
    return time.monotonic() - began


def _checked(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
