"""`python -m pipelines.cloud.check`: what it prints and its status, for a file as shipped, filled in, and broken."""

import sys
from pathlib import Path

import pytest

from pipelines.cloud import check

ROOT = Path(__file__).resolve().parents[3]


def test_the_file_as_shipped_names_what_is_unfilled_and_asks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(ROOT / "cluster.yaml")]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert sum("REPLACE stands for a value of yours" in line for line in lines) == 3
    assert "unknown  the account is looked at when all is filled in" in lines


def test_a_file_that_is_filled_in_lacks_only_what_the_account_lacks(
    aws: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check.main([str(aws)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("MISSING")] == [
        "MISSING  the account never used spot instances; once: "
        "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
    ]
    assert lines[-1] == "1 missing"
    import boto3

    boto3.client("iam").create_role(RoleName="AWSServiceRoleForEC2Spot", AssumeRolePolicyDocument="{}")
    assert check.main([str(aws)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"nothing is missing: ray up {aws}"


def test_without_a_token_it_says_how_to_make_one(
    aws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check.main([str(aws)]) == 2
    told = "MISSING  file_mounts: ~/.ray/auth_token is not here; `ray get-auth-token --generate` makes it"
    assert told in capsys.readouterr().out.splitlines()


def test_without_boto3_it_says_what_to_install(
    aws: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    assert check.main([str(aws)]) == 2
    assert "MISSING  boto3 is not installed, and `ray up` needs it: pip install -e .[s3]" in capsys.readouterr().out


def test_without_credentials_it_says_so_and_that_nothing_was_looked_at(
    aws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    import boto3

    boto3.DEFAULT_SESSION = None  # pyright: ignore[reportAttributeAccessIssue]
    assert check.main([str(aws)]) == 0
    assert "unknown  the account was not looked at: Unable to locate credentials" in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["a", "b"], ["--help"]])
def test_a_wrong_command_line_prints_how_to_call_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(words) == 2
    assert "python -m pipelines.cloud.check cluster.yaml" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(tmp_path / "absent.yaml")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
