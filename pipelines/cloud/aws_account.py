"""Rights and quotas that a cluster file needs, asked with the user's credentials. Nothing is made, started or paid."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pipelines.cloud.cluster_file import NodeType, bucket, node_types

IMAGE = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
SPOT_ROLE = "AWSServiceRoleForEC2Spot"
WORLD = {"0.0.0.0/0", "::/0"}
# Quotas in vCPU by family and market: `aws service-quotas list-service-quotas --service-code ec2`
QUOTAS = {
    ("standard", False): ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    ("standard", True): ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    ("g", False): ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("g", True): ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("p", False): ("L-417A185B", "Running On-Demand P instances"),
    ("p", True): ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
}


class Finding(NamedTuple):
    """One thing that was looked at. fine: None where it could not be found out."""

    fine: bool | None
    text: str


def family(instance_type: str) -> str:
    """The family that its quota is for: g6.12xlarge -> g, p4d.24xlarge -> p, m7i.2xlarge -> standard."""
    letters = re.match("[a-z]*", instance_type)
    return {"g": "g", "gr": "g", "vt": "g", "p": "p"}.get(letters[0] if letters else "", "standard")


def cpus_needed(kinds: list[NodeType], cpus: dict[str, int], most: int) -> dict[tuple[str, bool], int]:
    """vCPU by quota when the cluster is as large as it may be. most: workers, of whatever kind is largest."""
    needed: dict[tuple[str, bool], int] = {}
    for quota in sorted({(family(kind.instance_type), kind.spot) for kind in kinds}):
        of_it = [kind for kind in kinds if (family(kind.instance_type), kind.spot) == quota]
        sizes = [cpus.get(kind.instance_type, 0) for kind in of_it if not kind.leads for _ in range(kind.most)]
        heads = [cpus.get(kind.instance_type, 0) for kind in of_it if kind.leads]
        needed[quota] = sum(heads) + sum(sorted(sizes, reverse=True)[:most])
    return needed


class Account:
    """The account behind boto3's credentials, in one region. OSError or a boto error where there are none."""

    def __init__(self, content: dict[str, Any]) -> None:
        import boto3  # pyright: ignore[reportMissingImports]  an extra: s3

        self.content, self.kinds = content, list(node_types(content))
        session = boto3.Session(region_name=content["provider"]["region"])
        self.client: Callable[[str], Any] = session.client
        self.ec2 = self.client("ec2")
        self.who = self.client("sts").get_caller_identity()["Arn"]

    def findings(self) -> Iterator[Finding]:
        """Everything that is looked at, what is missing among it."""
        for look in (self.images, self.groups, self.profiles, self.zones, self.store, self.quotas, self.starts):
            try:
                yield from look()
            except self.errors() as error:
                yield Finding(None, f"{look.__name__} could not be looked at as {self.who}: {error}")

    def errors(self) -> type[Exception]:
        """The exceptions that boto raises where AWS refuses."""
        from botocore.exceptions import ClientError  # pyright: ignore[reportMissingImports]

        return ClientError

    def images(self) -> Iterator[Finding]:
        """The images are there, and how they compare with the newest."""
        for image in sorted({kind.config.get("ImageId", "") for kind in self.kinds}):
            try:
                (found,) = self.ec2.describe_images(ImageIds=[image])["Images"]
            except (self.errors(), ValueError):
                newest = self.client("ssm").get_parameter(Name=IMAGE)["Parameter"]["Value"]
                yield Finding(False, f"image {image} is not in this region; the newest of AWS's is {newest}")
            else:
                yield Finding(found.get("State") == "available", f"image {image}: {found.get('Name')}")

    def groups(self) -> Iterator[Finding]:
        """Security groups let nodes reach each other, and nobody else but by SSH from named addresses."""
        names = sorted({name for kind in self.kinds for name in kind.config.get("SecurityGroupIds", [])})
        if not names:
            yield Finding(False, "no SecurityGroupIds: Ray makes a group that lets the whole world try SSH")
            return
        for group in self.ec2.describe_security_groups(GroupIds=names)["SecurityGroups"]:
            rules = group["IpPermissions"]
            ranges = [r for rule in rules for r in (*rule.get("IpRanges", []), *rule.get("Ipv6Ranges", []))]
            open_to = sorted({r.get("CidrIp") or r.get("CidrIpv6") for r in ranges} & WORLD)
            within = any(
                pair["GroupId"] == group["GroupId"] for rule in rules for pair in rule.get("UserIdGroupPairs", [])
            )
            told = f"open to {', '.join(open_to)}" if open_to else "closed to the world"
            among = "nodes reach each other" if within else "nodes do not reach each other"
            yield Finding(not open_to and within, f"security group {group['GroupId']}: {told}; {among}")

    def profiles(self) -> Iterator[Finding]:
        """Each kind of machine has an instance profile that is there; the workers' is not the head's."""
        iam = self.client("iam")
        named = [(kind, kind.config.get("IamInstanceProfile", {}).get("Name")) for kind in self.kinds]
        for name in sorted({each for _, each in named if each}):
            try:
                roles = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]
                yield Finding(bool(roles), f"instance profile {name}: {len(roles)} role")
            except iam.exceptions.NoSuchEntityException:
                yield Finding(False, f"instance profile {name} is not there: deploy/aws/stack.yaml makes it")
        without = [kind.name for kind, name in named if not name]
        if without:
            yield Finding(False, f"no IamInstanceProfile, hence no bucket: {', '.join(without)}")
        if {name for kind, name in named if kind.leads} & {n for kind, n in named if not kind.leads}:
            yield Finding(False, "workers must have another profile than the head, which may start machines")
        if any(kind.spot for kind in self.kinds):
            try:
                iam.get_role(RoleName=SPOT_ROLE)
                yield Finding(True, "spot instances may be asked for")
            except iam.exceptions.NoSuchEntityException:
                hint = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
                yield Finding(False, f"the account never used spot instances; once: {hint}")

    def zones(self) -> Iterator[Finding]:
        """Each zone has a public subnet, as Ray's SSH needs."""
        public = {net["AvailabilityZone"] for net in self.public_subnets()}
        for zone in self.asked_zones():
            yield Finding(zone in public, f"zone {zone}: {'a' if zone in public else 'no'} public subnet")

    def asked_zones(self) -> list[str]:
        """The zones that the file names."""
        return [
            zone.strip() for zone in str(self.content["provider"].get("availability_zone") or "").split(",") if zone
        ]

    def public_subnets(self) -> list[dict[str, Any]]:
        """Subnets that Ray may choose: of the security groups' VPC, and such that a machine gets a public address."""
        names = sorted({name for kind in self.kinds for name in kind.config.get("SecurityGroupIds", [])})
        groups = self.ec2.describe_security_groups(GroupIds=names)["SecurityGroups"] if names else []
        vpcs = {group["VpcId"] for group in groups}
        subnets = self.ec2.describe_subnets()["Subnets"]
        return [net for net in subnets if net["MapPublicIpOnLaunch"] and (not vpcs or net["VpcId"] in vpcs)]

    def store(self) -> Iterator[Finding]:
        """The bucket is there and lies in the same region: reading from another one is paid by the GB."""
        name = bucket(self.content)
        if name is None:
            yield Finding(None, "no RESNET_BUCKET: logs and MLflow's database end with their machines")
            return
        try:
            where = self.client("s3").get_bucket_location(Bucket=name)["LocationConstraint"] or "us-east-1"
        except self.errors() as error:
            yield Finding(False, f"bucket {name}: {error}")
            return
        region = self.content["provider"]["region"]
        yield Finding(where == region, f"bucket {name} lies in {where}, the cluster in {region}")

    def quotas(self) -> Iterator[Finding]:
        """The account's vCPU quotas beside what the cluster needs when it is as large as it may be."""
        names = sorted({kind.instance_type for kind in self.kinds})
        found = self.ec2.describe_instance_types(InstanceTypes=names)["InstanceTypes"]
        cpus = {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in found}
        needed = cpus_needed(self.kinds, cpus, self.content.get("max_workers", 0))
        service = self.client("service-quotas")
        for quota, wanted in sorted(needed.items()):
            code, title = QUOTAS[quota]
            try:
                value = service.get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
                yield Finding(value >= wanted, f"quota {title} ({code}): {value:g} vCPU, {wanted} at the most needed")
            except self.errors() as error:
                yield Finding(None, f"quota {title} ({code}), {wanted} vCPU at the most needed: {error}")

    def starts(self) -> Iterator[Finding]:
        """True if each kind of machine could be started now with these very settings (EC2's DryRun)."""
        zones = self.asked_zones()
        there = [net["SubnetId"] for net in self.public_subnets() if not zones or net["AvailabilityZone"] in zones]
        place = {"SubnetId": there[0]} if there else {}
        for kind in self.kinds:
            try:
                self.ec2.run_instances(DryRun=True, MinCount=1, MaxCount=1, **place, **kind.config)
            except self.errors() as error:
                said: Any = getattr(error, "response", {}).get("Error", {})
                fine = said.get("Code") == "DryRunOperation"
                why = "could be started" if fine else f"{said.get('Code')}: {said.get('Message')}"
                yield Finding(fine, f"{kind.name} ({kind.instance_type}{', spot' if kind.spot else ''}): {why}")
