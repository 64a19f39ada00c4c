"""The estimate of a version's memory against what loading it really takes, and the refusal with figures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resnet.host.free_memory import gib
from serve.inference import checkpoint_files
from serve.settings import Args
from serve.versions import memory_need
from tests.serve.conftest import write_checkpoint

MEASURE = """
import json, sys
from serve.settings import Args
from serve.versions import memory_need
from serve.versions.loaded_model import load_version
from serve.versions.traffic import Version

def peak(field):
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1])

place = sys.argv[1]
before = peak("VmRSS")
load_version(Version(version="1", checkpoint=place), Args(checkpoint=place, batch=1, precision="float32"), "m", "r")
print(json.dumps([peak("VmHWM") - before, memory_need.memory_need(place, 1).loading]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("need") / "r18", "imagenet-resnet18-A", 224, 100)


def test_the_estimate_covers_what_loading_takes_and_not_much_more(place: Path):
    out = subprocess.run([sys.executable, "-c", MEASURE, str(place)], capture_output=True, text=True, check=True).stdout
    taken, estimated = json.loads(out.splitlines()[-1])
    assert 0.8 * taken < estimated < 4 * taken


def test_what_does_not_fit_is_refused_with_figures(place: Path):
    code = (
        "import resource, sys; from serve.settings import Args; from serve.versions import memory_need;"
        "resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29));"
        "print(memory_need.too_large(sys.argv[1], Args(checkpoint=sys.argv[1]), others=1))"
    )
    out = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True, text=True, check=True).stdout
    need = memory_need.memory_need(str(place), 16)
    assert need is not None
    assert out == (
        f"it needs about {gib(need.staying + need.loading)} of memory to be loaded here and by 1 more, "
        "and 0 MiB are free of the 512 MiB of its own limit (ulimit -v)\n"
    )


def test_what_fits_is_not_refused_and_an_unknown_place_neither(cifar: Path):
    assert memory_need.too_large(str(cifar), Args(checkpoint=str(cifar))) is None
    assert memory_need.memory_need("https://example.invalid/checkpoint", 16) is None


def test_sizes_are_those_of_the_files_here_and_in_a_bucket_s_file_system(cifar: Path):
    expected = {file.name: file.stat().st_size for file in cifar.iterdir() if file.name in checkpoint_files.FILES}
    assert checkpoint_files.sizes(str(cifar)) == expected
    assert checkpoint_files.sizes(f"file://{cifar}") == expected


def test_this_process_is_no_replica_and_one_is_counted_at_least(tmp_path: Path):
    for pid, title in ((1, b"init"), (2, b"ray::ServeReplica:resnet:classifier"), (3, b"ray::ServeReplica:other:x")):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(title)
    assert memory_need.replicas_here(tmp_path) == 2
    assert memory_need.replicas_here(tmp_path / "1") == 1
