"""What tests share: one private Ray, the real images beside the project, and a home that is thrown away."""

import atexit
import importlib.util
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.s3_server import KEYS

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


def pytest_configure(config: pytest.Config) -> None:
    """Hide this machine's GPUs, before torch and Ray look for them, from all tests but those marked gpu.

    Nothing else is written for them: trainings would go to CUDA, where two runs need not give the same bits.
    """
    if not _on_gpus(config):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    # A shell in the background and nohup have these ignored, and so would the programs that tests start. To say
    # otherwise by Popen's preexec_fn would fork this process with all threads of Ray, gRPC and AWS in it.
    for number, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, lambda *_: None)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, heard)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked gpu unless `-m gpu` asks for it."""
    for item in () if _on_gpus(config) else items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="runs on a GPU, with -m gpu"))


def _on_gpus(config: pytest.Config) -> bool:
    return config.getoption("markexpr") == "gpu"


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End before onnx's binding tells at the interpreter's end what it leaks, forty lines behind pytest's last one."""
    if STATUS not in config.stash:
        return
    atexit._run_exitfuncs()  # a private Ray ends, its folder is removed
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(config.stash[STATUS])


@pytest.fixture(scope="session", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$RESNET_HOME for all tests: nothing is read from or written to the user's own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNET_HOME", str(home))
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RESNET_ADDABLE_NODES"):
            patch.delenv(name, raising=False)
        yield home


@pytest.fixture(autouse=True)
def _store(_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of $RESNET_HOME for each test: MLflow leaves the last one's address in the environment."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def ray_local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One private Ray with four pretended CPUs and a dashboard, for all tests that need one. Gives Ray's context."""
    import ray

    from pipelines.cluster import private_ray
    from serve.haproxy import environment

    before = os.environ.copy()
    os.environ |= KEYS
    environment.use_haproxy()
    context = private_ray.start_private(
        num_cpus=4,
        num_gpus=0,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=0,
        object_store_memory=2**28,
        log_to_driver=False,
    )
    yield context
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pretended AWS account (moto) with what deploy/aws/stack.yaml makes; cluster.yaml filled in for it.

    The file lies beside links to what it mounts, and the home folder has a token.
    """
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    folder, home = tmp_path_factory.mktemp("cluster"), tmp_path_factory.mktemp("aws-home")
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Tried to parse AWS::Budgets::Budget")  # moto knows no budgets
        patch.setenv("HOME", str(home))
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        place: dict[str, Any] = {"LocationConstraint": "us-west-2"}
        boto3.client("s3", "us-west-2").create_bucket(Bucket="pictures", CreateBucketConfiguration=place)
        ec2, stacks = boto3.client("ec2", "us-west-2"), boto3.client("cloudformation", "us-west-2")
        given = {"Bucket": "pictures", "AdminCidr": "203.0.113.7/32", "Mail": "somebody@example.org"}
        given["VpcId"] = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
        stacks.create_stack(
            StackName="deep-residual-ray",
            TemplateBody=(ROOT / "deploy" / "aws" / "stack.yaml").read_text(),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        (output,) = stacks.describe_stacks()["Stacks"][0]["Outputs"]
        image = ec2.register_image(Name="base image", RootDeviceName="/dev/sda1")["ImageId"]
        values = {"ami-REPLACE": image, "sg-REPLACE": output["OutputValue"], "s3://REPLACE": "s3://pictures"}
        text = (ROOT / "cluster.yaml").read_text()
        for placeholder, value in values.items():
            text = text.replace(placeholder, value)
        (folder / "cluster.yaml").write_text(text)
        for path in ROOT.iterdir():
            if path.name != "cluster.yaml" and not path.name.startswith("."):
                (folder / path.name).symlink_to(path)
        (home / ".ray").mkdir()
        (home / ".ray" / "auth_token").write_text("0" * 64)
        yield folder / "cluster.yaml"


@pytest.fixture(scope="session")
def real_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with cifar-10-batches-bin/, imagenette/ and imagenet-sample/, unpacked once; skips without them."""
    if not (SHARED / "unpack.py").exists():
        pytest.skip(f"the real images are not here: {SHARED}")
    if importlib.util.find_spec("PIL") is None:
        pytest.skip("Pillow is not installed")
    folder = tmp_path_factory.getbasetemp().parent / "resnet-real-images"
    folder.mkdir(exist_ok=True)
    subprocess.run([sys.executable, SHARED / "unpack.py", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def with_scans() -> Callable[[bytes, int], bytes]:
    """with_scans(a progressive JPEG, n) -> the same picture in n scans: the last one, repeated."""
    from resnet.images.checks import jpeg_scans

    def repeated(data: bytes, scans: int) -> bytes:
        starts = [begin - 4 for marker, begin, _ in jpeg_scans.segments(data) if marker == jpeg_scans.SOS]
        return data[:-2] + data[starts[-1] : -2] * (scans - len(starts)) + data[-2:]

    return repeated


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of the embedded digits: 1,437 to train, 360 held out."""
    from pipelines.preparation.prepare import write_shards
    from pipelines.preparation.sources import Source

    out = str(tmp_path_factory.mktemp("digits") / "shards")
    write_shards(Source(kind="digits"), out, workers=0)
    return out


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, digits: str) -> Any:
    """untrained(seed) -> the folder of a finished run of ResNet-8 on the digits that learnt nothing."""
    import torch

    from pipelines.run import Run, standard
    from pipelines.shards.manifest import read_manifest
    from resnet.networks.resnet import build
    from resnet.training.checkpoint import Checkpoint, EpochRow, Progress, save_checkpoint

    root, manifest = tmp_path_factory.mktemp("untrained"), read_manifest(digits)

    def make(seed: int = 0) -> Path:
        run = Run(
            **(standard("cifar10-resnet8", data_is_given=False).model_dump() | {"seed": seed, "data": {"path": digits}})
        )
        folder = root / run.name
        if folder.exists():
            return folder
        total = run.recipe.total_steps(manifest.examples("train"))
        torch.manual_seed(seed)
        net = build(run.recipe.network, 10)
        net(torch.randn(64, 3, 32, 32))  # batch norm statistics that are no longer 0 and 1
        rows = (EpochRow(epoch=0, step=total, lr=0.1, train_loss=2.3, train_error=90, val_loss=2.3, top1_error=88.5,
                         top5_error=45, seconds=1, images_per_second=100),)  # fmt: skip
        pixels = {"mean": torch.full((3, 32, 32), 80.0), "std": torch.full((3, 1, 1), 60.0)}
        progress = Progress(step=total, total_steps=total, examples=360, classes=manifest.classes, rows=rows)
        checkpoint = folder / f"step-{total:08d}"
        save_checkpoint(checkpoint, Checkpoint(net.state_dict(), {}, pixels, run.model_dump(mode="json"), progress))
        sha = manifest.fingerprint_before()
        asked = {"recipe": run.recipe.model_dump(mode="json"), "seed": seed, "data_sha256": sha}
        outcome = {"run": run.name, "top1_error": 88.5, "top5_error": 45.0, "train_error": 90.0, "examples": 360,
                   "steps": total, "seconds": 1.0, "data": digits, "checkpoint": str(checkpoint)}  # fmt: skip
        (folder / "asked.json").write_text(json.dumps(asked))
        (folder / "outcome.json").write_text(json.dumps(outcome))
        return folder

    return make
