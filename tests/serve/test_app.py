"""The application on a real Ray Serve: deployed, asked over HTTP, replaced by another checkpoint."""

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from serve.deploy_settings import Deploy
from serve.haproxy import environment
from serve.inference.classifier import Classifier
from serve.settings import Args
from serve.versions.replica_states import verdicts
from serve.versions.traffic import Canary, Traffic, Version

Picture = Callable[..., bytes]
# Ray Serve 2.60 warns of itself when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on:DeprecationWarning")
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def url(ray_local: Any, cifar: Path) -> Iterator[str]:
    """The endpoint with two replicas."""
    from ray import serve

    from serve import deployment

    settings = {"min_replicas": 2, "max_replicas": 2, "cpus": 0.1, "precision": "float32"}
    yield deployment.deploy(Args(checkpoint=str(cifar), version="1", **settings), "127.0.0.1", free_port())
    serve.shutdown()


def test_answers_over_http_equal_the_classifier(url: str, classifier: Classifier, picture: Picture):
    images = [picture(seed) for seed in range(8)]
    expected = classifier.predict(images, 2)
    with httpx.Client(base_url=url, timeout=60) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda data: client.post("/v1/predict?top_k=2", content=data), images * 4))
    for answer, best in zip(answers, expected * 4, strict=True):
        assert answer.status_code == 200
        told = answer.json()["images"][0]["predictions"]
        assert [p["id"] for p in told] == [p.image_class.id for p in best]
        np.testing.assert_allclose([p["probability"] for p in told], [p.probability for p in best], atol=1e-6)


def test_errors_are_problem_details_through_the_proxy(url: str):
    for content, status in ((b"no image", 400), (b"0" * (17 * 2**20), 413), (b"%PDF-1.4", 415)):
        answer = httpx.post(f"{url}/v1/predict", content=content, timeout=60)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers.get_list("x-request-id") == [answer.json()["request_id"]]


def test_a_camera_streams_through_the_proxy(url: str, classifier: Classifier, picture: Picture):
    with connect(f"ws{url.removeprefix('http')}/v1/stream?top_k=1", proxy=None) as stream:
        answer = {}
        for seed in range(4):
            stream.send(picture(seed))
            answer = json.loads(stream.recv(timeout=60))
            if "error" in answer:  # a crowded machine may miss the deadline
                assert answer["error"]["status"] == 504
            else:
                (best,) = classifier.predict([picture(seed)], 1)
                assert answer["predictions"][0]["id"] == best[0].image_class.id
        assert answer["frames"] == 4
    with pytest.raises(InvalidStatus, match="422"):
        connect(f"ws{url.removeprefix('http')}/v1/stream?top_k=none", proxy=None)


def test_requests_come_by_haproxy_where_it_runs(url: str):
    from ray.util import list_named_actors

    from serve.haproxy import environment
    from serve.versions import rollout

    assert rollout.behind_haproxy() == (environment.refusal() is None)
    ports: set[int] = set()
    for process in psutil.process_iter(["name"]):
        with contextlib.suppress(psutil.NoSuchProcess):  # HAProxy is replaced when its servers change
            found = process.net_connections() if process.info["name"] == "haproxy" else []
            ports |= {c.laddr.port for c in found if c.status == psutil.CONN_LISTEN}
    assert (address(url)[1] in ports) == rollout.behind_haproxy(), list_named_actors(all_namespaces=True)


def test_metrics_are_of_all_replicas(url: str):
    from serve.versions import rollout

    lines = [line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("resnet_replica_up")]
    assert len(lines) == rollout.replicas() == 2
    assert all('version="1"' in line for line in lines)


def test_versions_are_switched_in_place_without_a_failed_request_and_bad_ones_refused(
    url: str, cifar: Path, picture: Picture, tmp_path: Path
):
    from serve import deployment
    from serve.versions import rollout

    shutil.copytree(cifar, tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").write_bytes(b"damaged")
    one, two, bad = (
        Version(version=v, checkpoint=str(p)) for v, p in (("1", cifar), ("2", cifar), ("3", tmp_path / "bad"))
    )
    replicas, versions, data = {state.replica for state in rollout.states()}, set(), picture(1)
    done = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=60) as client:
            while not done.is_set():
                answer = client.post(f"{url}/v1/predict", content=data)
                assert answer.status_code == 200, answer.text
                versions.add(answer.json()["version"])

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        clients = [pool.submit(load) for _ in range(2)]
        try:
            assert rollout.switch(Traffic(stable=two)) is None
            refused = rollout.switch(Traffic(stable=bad))
            assert refused is not None
            assert "is damaged" in refused
            assert rollout.switch(Traffic(stable=one, beside=(Canary(**two.model_dump(), percent=50),))) is None
            assert set(verdicts(rollout.states())) == {"2"}
            follower = deployment.Follower(lambda: Traffic(stable=one), lambda *_: None)
            follower.look()
        finally:
            done.set()
        assert [client.result() for client in clients] == [None, None]
    assert versions == {"1", "2"}
    assert {state.replica for state in rollout.states()} == replicas
    assert {(state.version, state.beside) for state in rollout.states()} == {("1", ())}


def test_no_client_sees_it_when_a_replica_is_killed(url: str, picture: Picture):
    if reason := environment.refusal():
        pytest.skip(f"Serve's own proxy answers 500 to what a killed replica had in progress: {reason}")
    from serve.versions import rollout

    killed = threading.Event()

    def late(data: bytes) -> Iterator[bytes]:
        time.sleep(0.01)  # after the head: HAProxy repeats only what it had whole before it sent it on
        yield data

    def ask(number: int) -> list[int]:
        codes, after = [], 0
        with httpx.Client(timeout=60) as client:
            while after < 20:
                data = picture(number)
                length = {"Content-Length": str(len(data))}
                codes.append(client.post(f"{url}/v1/predict", content=late(data), headers=length).status_code)
                after += killed.is_set()
        return codes

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(ask, number) for number in range(4)]
        time.sleep(0.5)
        os.kill(rollout.states()[0].pid, signal.SIGKILL)
        killed.set()
        codes = [code for client in clients for code in client.result()]
    assert set(codes) == {200}


@pytest.mark.slow
def test_another_checkpoint_takes_over_without_a_failed_request(url: str, imagenet: Path, picture: Picture):
    from serve import deployment

    data, versions = picture(1), []
    settings = {"min_replicas": 2, "max_replicas": 2, "cpus": 0.1}
    with concurrent.futures.ThreadPoolExecutor(1) as pool, httpx.Client(timeout=60) as client:
        deployed = pool.submit(
            deployment.deploy, Args(checkpoint=str(imagenet), version="2", **settings), *address(url)
        )
        while not deployed.done() or len(versions) < 20:
            answer = client.post(f"{url}/v1/predict", content=data)
            assert answer.status_code == 200, answer.text
            versions.append(answer.json()["version"])
        assert deployed.result() == url
    assert versions[0] == "1"
    assert versions[-1] == "2"


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def test_another_address_than_the_running_one_is_refused(url: str, cifar: Path):
    from serve import deployment

    with pytest.raises(ValueError, match="where Serve runs"):
        deployment.deploy(Args(checkpoint=str(cifar)), "127.0.0.1", free_port())


def test_the_config_file_builds_the_application():
    from ray.serve.schema import ServeDeploySchema

    from serve import app

    config = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text()))
    (application,) = config.applications
    assert application.import_path == "serve.app:build"
    assert app.build(Args(**application.args)) is not None
    assert config.http_options.host == "0.0.0.0"  # a node's HAProxy asks replicas of other nodes
    assert application.args["api_key_file"]


@pytest.mark.slow
def test_serve_deploy_with_the_config_file(ray_local: Any, cifar: Path, picture: Picture, tmp_path: Path):
    from ray import serve

    from serve import deployment
    from serve.versions import rollout

    serve.shutdown()  # another test's Serve listens elsewhere
    config = yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text())
    config["http_options"]["port"] = port = free_port()
    config["http_options"]["host"] = "127.0.0.1"
    (tmp_path / "keys").write_text(f"tester {'k' * 32}\n")
    settings = {"checkpoint": str(cifar), "min_replicas": 1, "cpus": 0.1, "api_key_file": str(tmp_path / "keys")}
    config["applications"][0]["args"] |= settings
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ray.serve.scripts", "deploy", "--address"]
    dashboard = f"http://{ray_local.address_info['webui_url']}"
    subprocess.run([*command, dashboard, str(tmp_path / "serve.yaml")], check=True, cwd=ROOT, capture_output=True)
    deployment.wait_until_ready(f"http://127.0.0.1:{port}", "1")
    predict = f"http://127.0.0.1:{port}/v1/predict"
    assert httpx.post(predict, content=picture(0)).status_code == 401
    key = {"Authorization": f"Bearer {'k' * 32}"}
    assert httpx.post(predict, content=picture(0), headers=key).status_code == 200
    assert rollout.switch(Traffic(stable=Version(version="2", checkpoint=str(cifar)))) is None
    assert httpx.get(f"http://127.0.0.1:{port}/readyz").json()["version"] == "2"
    serve.shutdown()


def test_limits_that_do_not_fit_are_named(cifar: Path):
    with pytest.raises(ValueError, match="max_replicas must be at least min_replicas 3, got 1"):
        Args(checkpoint=str(cifar), min_replicas=3)
    with pytest.raises(ValueError, match="max_waiting must be at least max_images 32, got 8"):
        Args(checkpoint=str(cifar), max_waiting=8)
    with pytest.raises(ValueError, match="only one of canary, promote and rollback"):
        Deploy(canary=("4=10%",), promote=True)
