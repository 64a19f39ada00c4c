"""Which cluster a job runs on, and by which token: settled before Ray is imported, within seconds, or one sentence.

Ray itself takes a minute and a hundred lines to say that nobody answers, or that a token is missing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.cluster import ray_internals
from pipelines.cluster.cluster_welcome import Welcome, welcome
from resnet.host.proxy_exceptions import ask_directly

ADDRESS, MODE = "RAY_ADDRESS", "RAY_AUTH_MODE"
PATIENCE = 5.0  # seconds for a host to answer
ONE_S_OWN = "or unset it and the job starts a Ray of its own"


def cluster_address() -> str | None:
    """HOST:PORT of the cluster of RAY_ADDRESS, or of the head on this machine; None: a private Ray is to be started.

    Sets RAY_AUTH_MODE as the cluster has it, where it is not set. ValueError: RAY_ADDRESS names what is not there or no
    cluster, or the cluster asks for a token that this process has not.
    """
    ask_directly()
    given = os.environ.get(ADDRESS, "").strip()
    if given == "local":
        return None
    if given in ("", "auto"):
        address = running_head()
        if address is None:
            if given:
                raise ValueError(f"{ADDRESS}=auto asks for the Ray of this machine, and {_nobody()}; {ONE_S_OWN}")
            return None
        source = "the head on this machine"
    else:
        address, source = _checked(given), f"{ADDRESS}={given}"
        if "://" in address:
            return address
    ask_directly(address.rpartition(":")[0])
    token = token_source()
    _agree(
        welcome(address, token[0] if token else None, PATIENCE),
        f"{source} ({address})" if address not in source else source,
    )
    return address


def submission_address() -> str | None:
    """Where jobs are submitted: an http:// address of RAY_ADDRESS, else cluster_address()."""
    given = os.environ.get(ADDRESS, "").strip()
    if not given.startswith(("http://", "https://")):
        return cluster_address()
    ask_directly()
    _agree(_asked_by_http(given.rstrip("/")), f"{ADDRESS}={given}")
    return given.rstrip("/")


def running_head() -> str | None:
    """Address of the head that `ray start --head` left running on this machine, or None."""
    address = noted_address()
    return address if address and _trouble(address, 1.0) is None else None


def noted_address() -> str | None:
    """The address that `ray start --head` wrote down on this machine, or None; it may have ended since.

    Read from Ray's file, not by Ray's own function: its import settles whether this process uses a token.
    """
    folder = os.environ.get("RAY_TMPDIR") or (sys.platform == "linux" and os.environ.get("TMPDIR")) or "/tmp"
    file = Path(folder) / "ray" / "ray_current_cluster"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip() or None
    return None


def token_source() -> tuple[str, str] | None:
    """The token that Ray would use here, and where it comes from; None: there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip(), "RAY_AUTH_TOKEN"
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        file, source = Path(named), f"RAY_AUTH_TOKEN_PATH={named}"
    elif "HOME" in os.environ:
        file = Path(os.environ["HOME"], ".ray", "auth_token")
        source = str(file)
    else:
        return None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if token := file.read_text().strip():
            return token, source
    return None


def _checked(given: str) -> str:
    """HOST:PORT where somebody answers. ValueError: RAY_ADDRESS is none."""
    scheme, _, rest = given.rpartition("://")
    if scheme in ("http", "https"):
        raise ValueError(
            f"{ADDRESS}={given} is where jobs are submitted: run this one as python -m pipelines.cluster -- python "
            f"jobs/..., or give the address of the head, {urlsplit(given).hostname}:6379"
        )
    if scheme == "ray":
        host = rest.partition(":")[0]
        raise ValueError(
            f"{ADDRESS}={given} is a Ray client's, which no job can use; submit the job: {ADDRESS}=http://{host}:8265 "
            "python -m pipelines.cluster -- python jobs/..."
        )
    if scheme:  # of a service that has a module of its own for it
        return given
    if (reason := _trouble(given, PATIENCE)) is not None:
        raise ValueError(f"{ADDRESS}={given} {reason}; start Ray there, give the address of another head, {ONE_S_OWN}")
    return given


def _nobody() -> str:
    noted = noted_address()
    if noted is None:
        return "none was started here by `ray start`; start one by `ray start --head`"
    return f"the one at {noted} has ended; start one by `ray start --head`"


def _trouble(address: str, patience: float) -> str | None:
    """Why nobody can be reached at HOST:PORT, in words; None: somebody listens."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        return "is no address of a cluster, which is HOST:PORT, e.g. 10.0.0.5:6379"
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=patience):
            return None
    except socket.gaierror:
        return f"names a host that is not known, {host}"
    except TimeoutError:
        return f"does not answer within {patience:g} seconds"
    except OSError as error:
        return f"does not answer ({(error.strerror or str(error)).lower()})"


def _agree(said: Welcome, where: str) -> None:
    """Use a token where the cluster asks for one. ValueError: with what this process has, it lets nobody in."""
    mode = os.environ.get(MODE, "").lower()
    token = token_source()
    if said is Welcome.UNKNOWN:
        return  # Ray finds out
    if said is Welcome.NO_RAY:
        raise ValueError(f"{where}: what answers there is no Ray; start Ray there, {ONE_S_OWN}")
    if said is Welcome.OPEN:
        return  # with a token it lets a process in as well
    if mode == "disabled":
        raise ValueError(f"{where} asks for a token, and {MODE}=disabled is set here: set {MODE}=token")
    if token is None:
        raise ValueError(f"{where} asks for a token: set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's")
    if said is not Welcome.BY_TOKEN:
        raise ValueError(f"{where} asks for another token than that of {token[1]}: set RAY_AUTH_TOKEN_PATH to its own")
    if mode != "token":
        ray_internals.use_token()


def _asked_by_http(url: str) -> Welcome:
    """The answer of a dashboard, where jobs are submitted, to this process's token. ValueError: it does not answer."""
    token = token_source()
    said = Welcome.NOT
    for given in (None, token[0] if token else None):
        headers = {"Authorization": f"Bearer {given}"} if given else {}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{url}/api/version", headers=headers), timeout=PATIENCE
            ):
                return Welcome.BY_TOKEN if given else Welcome.OPEN
        except urllib.error.HTTPError as error:
            said = Welcome.NOT if error.code in (401, 403) else Welcome.NO_RAY
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise ValueError(f"{ADDRESS}={url} does not answer ({reason}); {ONE_S_OWN}") from None
    return said


def is_here(address: str) -> bool:
    """True if the head of a cluster is this machine, and not at the other end of a tunnel (`ray dashboard`, ssh)."""
    import psutil

    parts = urlsplit(address if "://" in address else f"//{address}")
    own = {each.address for addresses in psutil.net_if_addrs().values() for each in addresses} | {"localhost"}
    if parts.hostname not in own:
        return False
    with contextlib.suppress(psutil.Error):
        for found in psutil.net_connections("tcp"):
            if found.status == psutil.CONN_LISTEN and tuple(found.laddr)[1:] == (parts.port,) and found.pid:
                command = " ".join(psutil.Process(found.pid).cmdline())
                return "/ray/dashboard/" in command or "gcs_server" in command
    return False
