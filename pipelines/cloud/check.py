"""python -m pipelines.cloud.check cluster.yaml

Says what a cluster file lacks before `ray up`: placeholders that are unfilled, the token, and, with the AWS credentials
of this shell, image, security group, profiles, zones, bucket, quotas and rights. Starts nothing. Exit status 0: nothing
is missing; 2: something is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines.cloud import cluster_file
from pipelines.cloud.aws_account import Account, Finding

MARKS = {True: "ok     ", False: "MISSING", None: "unknown"}


def local_findings(path: Path) -> Iterator[Finding]:
    """Findings made without asking a cloud."""
    for place in cluster_file.unfilled(path):
        yield Finding(False, f"{place}: {cluster_file.PLACEHOLDER} stands for a value of yours")
    content = cluster_file.read(path)
    for remote, local in content.get("file_mounts", {}).items():
        if not (path.parent / Path(local).expanduser()).exists():
            hint = "; `ray get-auth-token --generate` makes it" if remote.endswith("auth_token") else ""
            yield Finding(False, f"file_mounts: {local} is not here{hint}")


def cloud_findings(path: Path) -> Iterator[Finding]:
    """Findings of AWS, where its library and credentials are here."""
    content = cluster_file.read(path)
    if content["provider"].get("type") != "aws":
        yield Finding(None, f"provider {content['provider'].get('type')}: only an AWS account can be looked at")
        return
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # pyright: ignore[reportMissingImports]
    except ImportError:
        yield Finding(False, "boto3 is not installed, and `ray up` needs it: pip install -e .[s3]")
        return
    try:
        account = Account(content)
    except (BotoCoreError, ClientError) as error:
        yield Finding(None, f"the account was not looked at: {error}; `aws configure` or AWS_PROFILE")
        return
    yield Finding(True, f"account and user: {account.who}")
    yield from account.findings()


def main(words: list[str]) -> int:
    """Print a line for each finding; 2 where something is missing."""
    if len(words) != 1 or words[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    path = Path(words[0])
    try:
        findings = list(local_findings(path))
        if not any(each.text.endswith("a value of yours") for each in findings):
            findings += cloud_findings(path)
        else:
            findings.append(Finding(None, "the account is looked at when all is filled in"))
    except (OSError, ValueError) as error:
        print(f"pipelines.cloud.check: {error}", file=sys.stderr)
        return 2
    for each in findings:
        print(f"{MARKS[each.fine]}  {each.text}")
    missing = sum(each.fine is False for each in findings)
    print(f"{missing} missing" if missing else f"nothing is missing: ray up {os.fspath(path)}")
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
