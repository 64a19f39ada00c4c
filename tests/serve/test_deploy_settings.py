"""Options of jobs/deploy_best.py: pairs that exclude each other, and what is refused before anything is taken."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from serve.deploy_settings import Deploy


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"canary": ("5=10%",), "promote": True},
            "only one of canary, promote and rollback can be done at once, got canary ",
        ),
        ({"promote": True, "rollback": True}, "got promote and rollback"),
        ({"checkpoint": "/c", "canary": ("5=10%",)}, "canary is for a registered model, and checkpoint is none"),
        ({"checkpoint": "/c", "follow": True}, "follow is for a registered model, and checkpoint is none"),
        ({"shadow": ("5=10%",), "rollback": True}, "got shadow and rollback"),
        ({"promote_after": "1h"}, "promote_after is for a canary or shadow that begins now, got 1h alone"),
        ({"grpc_port": 8000}, "grpc_port must be another than port, got 8000 twice"),
        ({"trusted_proxies": ("10.0.0.0/8", "proxy")}, "must be addresses or networks such as 10.0.0.0/8, got proxy"),
        ({"every": 0}, "every"),
        ({"port": 70000}, "port"),
        ({"proxy": "nginx"}, "proxy"),
    ],
)
def test_what_cannot_be_is_one_sentence(given: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=re.escape(words)) as refused:
        Deploy(**given)
    assert "\n" not in str(refused.value)


def test_the_applications_arguments_are_the_options_and_the_version_found():
    asked = Deploy(model="mine@champion", batch=4, timeout=7.0)
    args, traffic = asked.resolved({"stable": {"version": "3", "checkpoint": "/c"}})
    assert (args.name, args.version, args.checkpoint, args.batch, args.timeout) == ("mine", "3", "/c", 4, 7.0)
    assert traffic.stable.version == "3"
    assert Deploy(model="mine/4").resolved({"stable": {"version": "4", "checkpoint": "/c"}})[0].name == "mine"


@pytest.mark.parametrize(
    ("given", "private", "words"),
    [
        ({"grow": True}, True, "grow is for a cluster that others started, where an autoscaler adds nodes"),
        ({"log_file": "/x.log"}, False, "log_file is for a Ray of this job's own"),
        ({"trusted_proxies": ("10.0.0.0/8",)}, False, "trusted_proxies is for a Ray of this job's own"),
        ({"grpc_port": 9000}, False, "grpc_port is for a job that stays: give follow too"),
        ({"cpus": 4096.0}, True, "cpus of a replica must be at most what this machine has"),
    ],
)
def test_what_a_job_cannot_do_here_is_refused_first(cifar: Path, given: dict[str, Any], private: bool, words: str):
    asked = Deploy(checkpoint=str(cifar), port=free_port(), **given)
    args, _ = asked.resolved({"stable": {"version": "unregistered", "checkpoint": str(cifar)}})
    with pytest.raises(ValueError, match=re.escape(words)):
        asked.prepare(args, private)


def test_a_port_that_is_taken_is_refused(cifar: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = Deploy(checkpoint=str(cifar), port=port)
        args, _ = asked.resolved({"stable": {"version": "unregistered", "checkpoint": str(cifar)}})
        with pytest.raises(ValueError, match=f"port.*{port}"):
            asked.prepare(args, private=True)


def test_replicas_for_which_an_autoscaler_makes_room_may_wait():
    few = [{"CPU": 1.0}]
    with pytest.raises(ValueError, match="cpus of a replica must be at most"):
        Deploy(cpus=2.0).require_room(few)
    Deploy(cpus=2.0, grow=True).require_room(few)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
