"""cluster.yaml as Ray's own AWS provider understands it, against a pretended account: which machines are asked for."""

import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

boto3 = pytest.importorskip("boto3", reason="boto3 comes with the extra s3")

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())
NODES = CONFIG["available_node_types"]


@pytest.fixture(scope="module")
def bootstrapped(aws: Path) -> dict[str, Any]:
    """The configuration that `ray up` hands to its provider."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load(aws.read_text()))
    validate_config(prepared)
    return AWSNodeProvider.bootstrap_config(AWSNodeProvider.fillout_available_node_types_resources(prepared))


def started(bootstrapped: dict[str, Any], kind: str) -> dict[str, Any]:
    """What the account has after Ray's provider started one machine of a kind."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    provider = AWSNodeProvider(bootstrapped["provider"], bootstrapped["cluster_name"])
    made = provider.create_node(bootstrapped["available_node_types"][kind]["node_config"], {"test": kind}, 1)
    (name,) = made
    (found,) = boto3.client("ec2", "us-west-2").describe_instances(InstanceIds=[name])["Reservations"]
    return found["Instances"][0]


MACHINES = {  # type, market, profile
    "head": ("m7i.2xlarge", None, "deep-residual-ray-head"),
    "gpu-g6-spot": ("g6.12xlarge", "spot", "deep-residual-ray-worker"),
    "gpu-g5-spot": ("g5.12xlarge", "spot", "deep-residual-ray-worker"),
    "gpu-g6e-spot": ("g6e.12xlarge", "spot", "deep-residual-ray-worker"),
    "gpu-on-demand": ("g6.12xlarge", None, "deep-residual-ray-worker"),
    "cpu-c7i-spot": ("c7i.8xlarge", "spot", "deep-residual-ray-worker"),
    "cpu-c6i-spot": ("c6i.8xlarge", "spot", "deep-residual-ray-worker"),
}


@pytest.mark.parametrize("kind", MACHINES)
def test_machines_are_started_with_our_image_profile_market_and_group(kind: str, bootstrapped: dict[str, Any]) -> None:
    asked = bootstrapped["available_node_types"][kind]["node_config"]
    machine = started(bootstrapped, kind)
    profile = machine["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    assert (machine["InstanceType"], machine.get("InstanceLifecycle"), profile) == MACHINES[kind]
    image = boto3.client("ec2", "us-west-2").describe_images(ImageIds=[machine["ImageId"]])["Images"][0]
    assert image["Name"] == "base image"
    assert [group["GroupName"] for group in machine["SecurityGroups"]] == ["deep-residual-ray"]
    assert machine["MetadataOptions"]["HttpTokens"] == "required"  # no page or library is talked into giving keys
    assert asked["BlockDeviceMappings"][0]["Ebs"] == {"VolumeSize": 200, "VolumeType": "gp3", "Encrypted": True}
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"


def test_ray_makes_no_security_group_of_its_own_and_ours_is_closed(bootstrapped: dict[str, Any]) -> None:
    groups = boto3.client("ec2", "us-west-2").describe_security_groups()["SecurityGroups"]
    assert {group["GroupName"] for group in groups} == {"default", "deep-residual-ray"}
    (ours,) = [group for group in groups if group["GroupName"] == "deep-residual-ray"]
    addresses = [r["CidrIp"] for rule in ours["IpPermissions"] for r in rule["IpRanges"]]
    assert addresses == ["203.0.113.7/32"]
    among = [pair["GroupId"] for rule in ours["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
    assert among == [ours["GroupId"]]


def test_machines_are_in_the_zone_that_is_named(bootstrapped: dict[str, Any]) -> None:
    assert started(bootstrapped, "cpu-c6i-spot")["Placement"]["AvailabilityZone"] == "us-west-2b"


def test_the_head_takes_no_work_and_the_gpus_are_counted(bootstrapped: dict[str, Any]) -> None:
    kinds = bootstrapped["available_node_types"]
    assert kinds["head"]["resources"]["CPU"] == 0
    for kind in ("gpu-g6-spot", "gpu-g5-spot", "gpu-g6e-spot", "gpu-on-demand"):
        assert {name: kinds[kind]["resources"][name] for name in ("CPU", "GPU")} == {"CPU": 48, "GPU": 4}
    for kind, (instance_type, _, _) in MACHINES.items():  # Ray would believe more than there is
        found = boto3.client("ec2", "us-west-2").describe_instance_types(InstanceTypes=[instance_type])
        assert kinds[kind]["resources"]["CPU"] <= found["InstanceTypes"][0]["VCpuInfo"]["DefaultVCpus"]


def launched(bootstrapped: dict[str, Any], bundle: dict[str, float], count: int, **failed: float) -> dict[str, int]:
    """Kinds that autoscaler v2 starts for so many requests. failed: 0 just failed ... 1 ten minutes ago."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = AutoscalingConfig(bootstrapped, skip_content_hash=True)
    request = SchedulingRequest(
        True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_worker_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(bundle)] * count),
        recoverable_resource_availabilities={name.replace("_", "-"): score for name, score in failed.items()},
    )
    found = ResourceDemandScheduler(None).schedule(request).to_launch  # pyright: ignore[reportArgumentType]
    return dict(Counter({each.instance_type: each.count for each in found}))


def test_spot_comes_first_by_priority_and_on_demand_last(bootstrapped: dict[str, Any]) -> None:
    ranks, every = {"CPU": 1.0, "GPU": 1.0}, {"gpu_g6_spot": 0.2, "gpu_g5_spot": 0.1, "gpu_g6e_spot": 0.0}
    assert launched(bootstrapped, ranks, 8) == {"gpu-g6-spot": 2}
    assert launched(bootstrapped, ranks, 8, gpu_g6_spot=0.2) == {"gpu-g5-spot": 2}
    assert launched(bootstrapped, ranks, 8, gpu_g6_spot=0.2, gpu_g5_spot=0.1) == {"gpu-g6e-spot": 2}
    assert launched(bootstrapped, ranks, 8, **every) == {"gpu-on-demand": 2}
    assert launched(bootstrapped, ranks, 40) == {"gpu-g6-spot": 8, "gpu-g5-spot": 2}
    decoding = {"CPU": 1.0}
    assert launched(bootstrapped, decoding, 40) == {"cpu-c7i-spot": 2}
    assert launched(bootstrapped, decoding, 40, cpu_c7i_spot=0.5) == {"cpu-c6i-spot": 2}


def test_workers_may_use_the_bucket_only_and_the_head_starts_machines_beside(aws: Path) -> None:
    from moto.core import set_initial_no_auth_action_count

    sts = boto3.client("sts")
    keys = {}
    for role in ("head", "worker"):
        arn = f"arn:aws:iam::123456789012:role/deep-residual-ray-{role}"
        keys[role] = sts.assume_role(RoleArn=arn, RoleSessionName="test")["Credentials"]

    @set_initial_no_auth_action_count(0)
    def may(role: str, service: str, call: str, **arguments: Any) -> bool:
        """Whether moto, which reads the policies from now on, lets a role do something."""
        got = keys[role]
        client = boto3.client(
            service,
            "us-west-2",
            aws_access_key_id=got["AccessKeyId"],
            aws_secret_access_key=got["SecretAccessKey"],
            aws_session_token=got["SessionToken"],
        )
        try:
            getattr(client, call)(**arguments)
        except client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in ("AccessDenied", "UnauthorizedOperation"):
                raise
            return False
        return True

    for role in ("head", "worker"):
        assert may(role, "s3", "put_object", Bucket="pictures", Key="runs/x", Body=b"1")
        assert may(role, "s3", "get_object", Bucket="pictures", Key="runs/x")
        assert may(role, "s3", "list_objects_v2", Bucket="pictures")
        assert not may(role, "s3", "list_buckets")
        assert not may(role, "s3", "put_object", Bucket="others", Key="x", Body=b"1")
        assert not may(role, "iam", "list_roles")
    assert may("head", "ec2", "describe_instances")
    assert not may("worker", "ec2", "describe_instances")


def test_the_head_may_call_what_rays_provider_calls_and_no_more(aws: Path) -> None:
    iam = boto3.client("iam")
    document = iam.get_policy_version(
        PolicyArn="arn:aws:iam::123456789012:policy/deep-residual-ray-head", VersionId="v1"
    )["PolicyVersion"]["Document"]
    by_action: dict[str, list[dict[str, Any]]] = {}
    for statement in document["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            by_action.setdefault(action, []).append(statement)
    assert set(by_action) == {
        "ec2:DescribeInstances",
        "ec2:RunInstances",
        "ec2:CreateTags",
        "ec2:TerminateInstances",
        "iam:PassRole",
    }
    (ends,) = by_action["ec2:TerminateInstances"]
    assert ends["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "deep-residual-ray"}}
    (passes,) = by_action["iam:PassRole"]
    assert passes["Resource"] == "arn:aws:iam::123456789012:role/deep-residual-ray-worker"


def test_all_that_is_to_be_filled_in_stands_in_the_block_at_the_top() -> None:
    lines = (ROOT / "cluster.yaml").read_text().splitlines()
    block = lines.index(next(line for line in lines if line.startswith("cluster_name:")))
    places = [number for number, line in enumerate(lines) if "REPLACE" in line.partition(" #")[0]]
    assert len(places) == 3
    assert max(places) < block
    regions = {number for number, line in enumerate(lines) if re.search(r"\bus-west-2\b", line.partition("#")[0])}
    assert max(regions) < block


def test_every_package_travels_and_nothing_that_is_large() -> None:
    """Ray hashes all that it mounts at each `ray up`."""
    mounts = CONFIG["file_mounts"]
    prefix = "/home/ubuntu/deep-residual-ray/"
    assert all(remote == prefix + local for remote, local in mounts.items() if not local.startswith("~"))
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packages["only-include"]) <= set(mounts.values())
    assert {"deploy", "pyproject.toml", "README.md", "LICENSE", "requirements-run.txt"} <= set(mounts.values())
    tracked = subprocess.run(["git", "ls-files", "-z", *(m for m in mounts.values() if not m.startswith("~"))],
                             cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")  # fmt: skip
    assert sum((ROOT / name).stat().st_size for name in tracked if name) < 8 * 2**20


def test_commands_use_what_is_there() -> None:
    commands = [*CONFIG["setup_commands"], *CONFIG["head_start_ray_commands"], *CONFIG["worker_start_ray_commands"]]
    for name in set(re.findall(r"~/deep-residual-ray/(\S+)", " ".join(commands))):
        assert (ROOT / name).is_file(), name
        assert subprocess.run(["bash", "-n", ROOT / name], check=False).returncode == 0
    (head,) = [command for command in CONFIG["head_start_ray_commands"] if "ray start" in command]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head
    assert "--dashboard-host=127.0.0.1" in head  # reached by `ray dashboard`, through SSH
