"""A process's own temporary folder: short, closed, gone with it; leftovers of killed processes go at the next start."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resnet.host import temporary_folder
from resnet.host.temporary_folder import own_folder, remove_leftovers

HOLD = """
import sys, time
from resnet.host.temporary_folder import own_folder
folder = own_folder("held-")
(folder / "token").write_text("secret")
print(folder, flush=True)
sys.stdin.readline()
"""


def holder(place: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a folder until a line comes in."""
    pipe = subprocess.PIPE
    environment = {name: value for name, value in os.environ.items() if name != "RAY_TMPDIR"} | {"TMPDIR": str(place)}
    process = subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdin=pipe, stdout=pipe, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.fixture
def place() -> Iterator[Path]:
    """Short, as pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_it_is_closed_to_others_and_gone_with_its_process(place: Path) -> None:
    process, folder = holder(place)
    assert folder.parent == place
    assert folder.stat().st_mode & 0o777 == 0o700
    process.communicate("\n", timeout=30)
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(place: Path) -> None:
    living, kept = holder(place)
    killed, left = holder(place)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    assert (left / "token").exists()
    (place / "held-by-a-user").mkdir()  # the same prefix, and no lock of ours
    (place / "held-link").symlink_to(left)
    assert remove_leftovers(place) == [left]
    assert (kept / "token").exists()
    living.communicate("\n", timeout=30)
    assert sorted(path.name for path in place.iterdir()) == ["held-by-a-user", "held-link"]


@pytest.mark.parametrize("name", ["with space", "größe", "a" * 90, "missing"])
def test_an_unfit_folder_is_passed_over(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name != "missing":
        (place / name).mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(place / name))
    assert own_folder("passed-", inside=60).parent == Path("/tmp")


def test_no_fit_folder_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "größe").mkdir()
    (place / "long").mkdir()
    monkeypatch.setattr(temporary_folder, "_places", lambda: iter([place / "größe", place / "long", place / "none"]))
    with pytest.raises(ValueError, match=r"^TMPDIR must name a folder") as caught:
        own_folder("no-", inside=80)
    sentence = str(caught.value)
    assert f"{place}/none is no folder" in sentence
    assert "\n" not in sentence


UNFIT = """
import sys
from pathlib import Path
from resnet.host.temporary_folder import _unfit
print([_unfit(Path(sys.argv[1]), 90, executable) for executable in (False, True)])
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("noexec", "[None, 'cannot be used (Permission denied)']"),
        ("ro", "['cannot be used (Read-only file system)', 'cannot be used (Read-only file system)']"),
    ],
)
def test_a_mount_without_execution_or_for_reading_is_told(place: Path, options: str, expected: str) -> None:
    """HAProxy's wrapper is a program in the folder. The mount is seen by the test's own process only."""
    mounted = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    command = f"{shlex.join(mounted)} && {shlex.join([sys.executable, '-c', UNFIT, str(place)])}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True)
    if "denied" in done.stderr or "not permitted" in done.stderr:
        pytest.skip("only root may mount")
    assert done.stdout.strip() == expected


def test_sockets_of_killed_processes_are_removed_and_no_others(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    long_ago = time.time() - 3600
    with contextlib.ExitStack() as living:
        for name in ("pymp-dead", "pymp-alive", "pymp-new", "other-dead"):
            (place / name).mkdir()
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(place / name / "listener"))
            server.listen() if name == "pymp-alive" else None
            living.enter_context(server) if name == "pymp-alive" else server.close()
        (place / "pymp-full").mkdir()
        (place / "pymp-full" / "work").write_text("of somebody")
        (place / "pymp-empty").mkdir()
        for folder in set(place.iterdir()) - {place / "pymp-new"}:
            os.utime(folder, (long_ago, long_ago))
        assert temporary_folder.remove_dead_sockets() == [place / "pymp-dead"]
        left = {folder.name for folder in place.iterdir()}
        assert left == {"pymp-alive", "pymp-new", "pymp-full", "pymp-empty", "other-dead"}


FORKS = """
import os, tempfile, time
from multiprocessing import forkserver
from pathlib import Path
import psutil
from resnet.host import temporary_folder

def servers():
    return {p.pid for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())}

forkserver.ensure_running()
(folder,) = Path(tempfile.gettempdir()).glob("pymp-*")
os.utime(folder, (1, 1))
before = servers()
assert temporary_folder.remove_dead_sockets() == []
time.sleep(1)  # in which one that was disturbed has ended
assert servers() == before != set(), (before, servers())
assert all(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in before)
"""


def test_a_fork_server_that_lives_is_not_disturbed(place: Path) -> None:
    """Each of Ray's dashboards has one, and ends with it."""
    environment = os.environ | {"TMPDIR": str(place), "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", FORKS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
