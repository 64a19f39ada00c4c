"""README's lines for a cluster, from a machine that has the token and the dashboard's port and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.lab import PROGRAMS, S3

pytestmark = pytest.mark.timeout(900)
README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
SMALL = "--recipe.steps 2 --recipe.optim.batch-size 32 --recipe.images.size 32"


def readme_line() -> str:
    """`ray job submit` of README, its lines joined."""
    found = re.search(r"ray job submit --working-dir \. -- (?:.*\\\n)*.*", README)
    assert found, "README has no line of that kind"
    return re.sub(r"\\\n\s*", "", found[0])


def last_line(text: str) -> str:
    """Of what a job printed, before Ray's own lines about its end."""
    lines = [line for line in text.splitlines() if line.strip() and "cli.py" not in line]
    return next(line for line in reversed(lines) if re.match(r"\w+\.py: ", line))


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RAY_AUTH_TOKEN_PATH": "/home/ubuntu/none"}, "asks for a token: set RAY_AUTH_TOKEN_PATH"),
        ({"RAY_AUTH_TOKEN": "0" * 64}, "asks for another token than that of RAY_AUTH_TOKEN"),
    ],
    ids=["no token", "a wrong token"],
)
def test_without_the_token_nobody_comes_in(cluster: Cluster, variables: dict[str, str], says: str) -> None:
    ours = cluster.from_client("python -m pipelines.cluster -- python jobs/train_imagenet.py", **variables)
    rays = cluster.from_client("ray job submit --working-dir . -- python jobs/train_imagenet.py", **variables)
    assert ours.ended(90) == 2
    assert says in ours.text
    assert len(ours.text.splitlines()) == 1
    assert rays.ended(90) == 1
    assert "uthentication" in rays.text
    assert "submitted successfully" not in rays.text


@pytest.mark.cluster
def test_the_client_reaches_nothing_but_the_tunnel(cluster: Cluster) -> None:
    assert cluster["client"].start("exec 3<>/dev/tcp/10.77.0.1/6379").ended(10) != 0
    assert cluster["w1"].start("exec 3<>/dev/tcp/10.77.0.1/6379").ended(10) == 0


@pytest.mark.cluster
def test_a_folder_of_one_machine_is_refused_before_the_first_step(cluster: Cluster) -> None:
    job = cluster.from_client("ray job submit jobs/train_imagenet.py")
    assert job.ended(240) == 1
    assert re.fullmatch(
        r"train_imagenet.py: storage must be a bucket or a folder that all machines share where several work, got "
        r"/home/ubuntu/resnet/runs/cifar10-resnet20-A.s0 of ip-10-77-0-1, which ip-10-77-0-1[12] does not see",
        last_line(job.text),
    ), job.text
    assert "epoch 0" not in job.text


@pytest.mark.cluster
def test_shards_of_one_machine_are_refused(cluster: Cluster) -> None:
    written = cluster["head"].python("jobs/write_shards.py --source.kind digits --out /home/ubuntu/shards")
    written.done(120)
    line = "python jobs/train_imagenet.py cifar10-resnet8 --data.path /home/ubuntu/shards --storage s3://bucket/local"
    job = cluster.from_client(f"python -m pipelines.cluster -- {line}")
    assert job.ended(240) == 2
    assert "data.path must be a bucket or a folder that all machines share" in last_line(job.text)


@pytest.mark.cluster
def test_the_line_of_readme_trains(cluster: Cluster) -> None:
    pictures = cluster["s3"].start(f"deep-residual-ray/.venv/bin/python {PROGRAMS}/pictures.py bucket pictures", **S3)
    pictures.done(120)
    prepare = "python jobs/write_shards.py --source.path s3://bucket/pictures --out s3://bucket/shards"
    cluster.from_client(f"python -m pipelines.cluster -- {prepare}").done(240)

    literal = cluster.from_client(readme_line())
    assert literal.ended(240) == 1
    assert "--scaling.gpu False" in last_line(literal.text), "a cluster without GPUs"

    job = cluster.from_client(f"{readme_line()} --scaling.gpu False {SMALL}")
    assert job.ended(400) == 0, job.text
    left = cluster.left("s3://bucket/runs/imagenet-resnet50-B.s0")
    assert "outcome.json" in left["files"]
    assert left["rows"][-1]["step"] == 2
