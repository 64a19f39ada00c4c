"""What an AWS account (pretended by moto) lacks for a cluster file, each thing with a right and a wrong state."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.cloud import cluster_file
from pipelines.cloud.aws_account import Account, Finding, cpus_needed, family
from pipelines.cloud.cluster_file import NodeType

boto3 = pytest.importorskip("boto3", reason="boto3 comes with the extra s3")
ROLE = "AWSServiceRoleForEC2Spot"


@pytest.fixture
def content(aws: Path) -> dict[str, Any]:
    return cluster_file.read(aws)


def missing(findings: Any) -> list[str]:
    return [each.text for each in findings if each.fine is False]


def test_an_account_with_all_that_is_needed(content: dict[str, Any]) -> None:
    iam = boto3.client("iam")
    assert missing(Account(content).profiles()) == [
        "the account never used spot instances; once: "
        "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
    ]
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")
    found = list(Account(content).findings())
    assert missing(found) == []
    unknown = [each.text for each in found if each.fine is None]
    assert len(unknown) == 4  # moto knows no quotas of EC2
    assert all(text.startswith("quota ") for text in unknown)
    assert Finding(True, "gpu-g6-spot (g6.12xlarge, spot): could be started") in found
    assert Finding(True, "bucket pictures lies in us-west-2, the cluster in us-west-2") in found


def test_an_image_of_another_region_is_told_with_the_newest(content: dict[str, Any]) -> None:
    for kind in content["available_node_types"].values():
        kind["node_config"]["ImageId"] = "ami-00000000000000000"
    boto3.client("ssm", "us-west-2").put_parameter(Name="/ours/image", Value="ami-1", Type="String")
    with pytest.MonkeyPatch.context() as patch:  # names under /aws/service cannot be made
        patch.setattr("pipelines.cloud.aws_account.IMAGE", "/ours/image")
        assert missing(Account(content).images()) == [
            "image ami-00000000000000000 is not in this region; the newest of AWS's is ami-1"
        ]


def test_a_group_that_the_world_reaches_is_told(content: dict[str, Any]) -> None:
    ec2 = boto3.client("ec2", "us-west-2")
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="open", Description="open", VpcId=vpc)["GroupId"]
    world: Any = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=world)
    for kind in content["available_node_types"].values():
        kind["node_config"]["SecurityGroupIds"] = [group]
    assert missing(Account(content).groups()) == [
        f"security group {group}: open to 0.0.0.0/0; nodes do not reach each other"
    ]
    for kind in content["available_node_types"].values():
        del kind["node_config"]["SecurityGroupIds"]
    assert missing(Account(content).groups()) == [
        "no SecurityGroupIds: Ray makes a group that lets the whole world try SSH"
    ]


def test_profiles_that_are_absent_or_the_heads_are_told(content: dict[str, Any]) -> None:
    kinds = content["available_node_types"]
    kinds["gpu-g6-spot"]["node_config"] = kinds["gpu-g6-spot"]["node_config"] | {
        "IamInstanceProfile": {"Name": "nobody"}
    }
    kinds["cpu-c6i-spot"]["node_config"] = dict(kinds["cpu-c6i-spot"]["node_config"])
    del kinds["cpu-c6i-spot"]["node_config"]["IamInstanceProfile"]
    kinds["gpu-on-demand"]["node_config"] = kinds["head"]["node_config"]
    told = missing(Account(content).profiles())
    assert "instance profile nobody is not there: deploy/aws/stack.yaml makes it" in told
    assert "no IamInstanceProfile, hence no bucket: cpu-c6i-spot" in told
    assert "workers must have another profile than the head, which may start machines" in told


def test_a_bucket_that_is_absent_or_far_and_a_zone_of_another_region_are_told(content: dict[str, Any]) -> None:
    content["metadata"]["environment"] = "printf RESNET_BUCKET=s3://absent/runs"
    (told,) = missing(Account(content).store())
    assert told.startswith("bucket absent: ")
    boto3.client("s3", "us-east-1").create_bucket(Bucket="far-away")
    content["metadata"]["environment"] = "printf RESNET_BUCKET=s3://far-away"
    assert missing(Account(content).store()) == ["bucket far-away lies in us-east-1, the cluster in us-west-2"]
    content["provider"] = content["provider"] | {"availability_zone": "us-west-2a, eu-central-1b"}
    assert missing(Account(content).zones()) == ["zone eu-central-1b: no public subnet"]


@pytest.mark.parametrize(
    ("instance_type", "wanted"),
    [("g6.12xlarge", "g"), ("g6e.12xlarge", "g"), ("gr6.4xlarge", "g"), ("p4d.24xlarge", "p"), ("p5.48xlarge", "p"),
     ("m7i.2xlarge", "standard"), ("c7i.8xlarge", "standard"), ("r8g.large", "standard"), ("vt1.3xlarge", "g")],
)  # fmt: skip
def test_families_of_quotas(instance_type: str, wanted: str) -> None:
    assert family(instance_type) == wanted


def test_quotas_count_the_largest_workers_up_to_the_clusters_size_and_the_head_beside() -> None:
    kinds = [
        NodeType("head", "m7i.2xlarge", 1, False, True, {}),
        NodeType("cpu", "c7i.8xlarge", 4, False, False, {}),
        NodeType("small", "g6.12xlarge", 8, True, False, {}),
        NodeType("large", "g5.48xlarge", 2, True, False, {}),
    ]
    cpus = {"m7i.2xlarge": 8, "c7i.8xlarge": 32, "g6.12xlarge": 48, "g5.48xlarge": 192}
    assert cpus_needed(kinds, cpus, 5) == {("standard", False): 8 + 4 * 32, ("g", True): 2 * 192 + 3 * 48}
