"""Where everything lies that no option names: the same place for make, for plain jobs and for every user."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from resnet.host import home_folder

ROOT = Path(__file__).resolve().parents[3]
SAY = "from resnet.host.home_folder import home_folder, other_homes; print(home_folder(), *other_homes(), sep='|')"


def said(*prefix: str, cwd: Path = ROOT, **variables: str) -> str:
    """What a process of this environment says, without RESNET_HOME and HOME where they are not given."""
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run([*prefix, sys.executable, "-c", SAY], env=kept, cwd=cwd, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def test_of_a_checkout_it_is_where_make_puts_it(tmp_path: Path) -> None:
    assert "export RESNET_HOME ?= $(CURDIR)/runs" in (ROOT / "Makefile").read_text()
    assert said(HOME=str(tmp_path)).split("|")[0] == f"{ROOT}/runs"
    here, *others = said(HOME=str(tmp_path), RESNET_HOME="~/elsewhere").split("|")
    assert here == f"{tmp_path}/elsewhere"
    trained = (ROOT / "runs" / "mlflow.db").exists()  # by `make train` in this checkout
    assert others == ([f"{ROOT}/runs"] if trained else [])


def test_installed_or_uploaded_it_is_in_the_user_s_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RESNET_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(home_folder, "ROOT", tmp_path / "site-packages")
    assert home_folder.home_folder() == tmp_path / "resnet"
    copy = tmp_path / "working_dir_files" / "_ray_pkg_0123" / "project"
    copy.mkdir(parents=True)
    (copy / "pyproject.toml").touch()
    monkeypatch.setattr(home_folder, "ROOT", copy)
    assert home_folder.home_folder() == tmp_path / "resnet"


def test_results_that_lie_elsewhere_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RESNET_HOME", str(tmp_path / "new"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(home_folder, "ROOT", tmp_path / "site-packages")
    assert home_folder.other_homes() == []
    for place in ("runs", "resnet", "new"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mlflow.db").touch()
    assert home_folder.other_homes() == [tmp_path / "runs", tmp_path / "resnet"]


# A user of an OpenShift container: a number without a name. The interpreter may lie where only root looks.
STRANGER = (
    "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become a user who has no passwd entry")
def test_a_user_without_home_folder_reads_one_sentence() -> None:
    stranger = STRANGER.split()
    assert said(*stranger) == (
        "ValueError: RESNET_HOME must name a folder: this user has no home folder, and ~/resnet is below it"
    )
    assert said(*stranger, HOME="/") == (
        "ValueError: RESNET_HOME must name a folder that this user can write to, got /resnet"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own is closed to others
        Path(folder).chmod(0o777)
        assert said(*stranger, RESNET_HOME=f"{folder}/home").split("|")[0] == f"{folder}/home"
