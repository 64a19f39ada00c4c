"""deploy/kubernetes: fields that KubeRay knows, what its operator requires, and what keeps strangers and faults out.

Sources, all of ray-project/kuberay at v1.7.0: fields from ray-operator/apis/ray/v1/*_types.go (in this reduced form; on
28 November 2026 the rendered manifests also passed the full CRD schemas, unknown fields refused, and Kubernetes 1.37's
models), rules from ray-operator/controllers/ray: utils/validation.go, common/service.go, common/pod.go, common/job.go,
raycluster_controller.go, rayjob_controller.go, rayservice_controller.go. Each test names its own.
"""

import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
PARTS = ("platform", "training", "endpoint")
Object = dict[str, Any]


def objects(*parts: str) -> Iterator[Object]:
    """The objects of the manifests as they are written, without values put in."""
    for part in parts:
        for name in yaml.safe_load((FOLDER / part / "kustomization.yaml").read_text())["resources"]:
            yield from yaml.safe_load_all((FOLDER / part / name).read_text())


def one(kind: str, name: str | None = None) -> Object:
    (found,) = [o for o in objects(*PARTS) if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    return found


JOB, SERVICE = one("RayJob"), one("RayService")
VALUES = yaml.safe_load((FOLDER / "values" / "values.yaml").read_text())["data"]
CLUSTERS: dict[str, Object] = {"job": JOB["spec"]["rayClusterSpec"], "service": SERVICE["spec"]["rayClusterConfig"]}
GROUPS = {name: [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]] for name, cluster in CLUSTERS.items()}
PLATFORM = yaml.safe_load((FOLDER / "platform" / "kustomization.yaml").read_text())
SECRETS = {made["name"]: [file.partition("=")[0] for file in made["files"]] for made in PLATFORM["secretGenerator"]}


def pods() -> Iterator[tuple[str, Object]]:
    """Name and spec of every pod that these manifests make."""
    for thing in objects(*PARTS):
        if thing["kind"] == "Deployment":
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]
    yield "submitter", JOB["spec"]["submitterPodTemplate"]["spec"]
    for name, groups in GROUPS.items():
        for group in groups:
            yield f"{name} {group.get('groupName', 'head')}", group["template"]["spec"]


PODS = dict(pods())

# Field -> its type, or the fields below it
INTEGER, TEXT, FLAG, OF_KUBERNETES = int, str, bool, dict
TEXTS = {"*": TEXT}
CLUSTER: Object = {
    "rayVersion": TEXT,
    "enableInTreeAutoscaling": FLAG,
    "autoscalerOptions": {
        "version": TEXT,
        "idleTimeoutSeconds": INTEGER,
        "resources": OF_KUBERNETES,
        "securityContext": OF_KUBERNETES,
    },
    "authOptions": {"mode": TEXT, "secretName": TEXT},
    "gcsFaultToleranceOptions": {"redisAddress": TEXT, "redisPassword": {"valueFrom": OF_KUBERNETES}},
    "headGroupSpec": {"rayStartParams": TEXTS, "template": OF_KUBERNETES},
    "workerGroupSpecs": [
        {
            "groupName": TEXT,
            "priority": INTEGER,
            "replicas": INTEGER,
            "minReplicas": INTEGER,
            "maxReplicas": INTEGER,
            "idleTimeoutSeconds": INTEGER,
            "rayStartParams": TEXTS,
            "template": OF_KUBERNETES,
        }
    ],
}
FIELDS: dict[str, Object] = {
    "RayJob": {
        "entrypoint": TEXT,
        "submissionMode": TEXT,
        "backoffLimit": INTEGER,
        "submitterConfig": {"backoffLimit": INTEGER},
        "preRunningDeadlineSeconds": INTEGER,
        "activeDeadlineSeconds": INTEGER,
        "shutdownAfterJobFinishes": FLAG,
        "ttlSecondsAfterFinished": INTEGER,
        "runtimeEnvYAML": TEXT,
        "submitterPodTemplate": OF_KUBERNETES,
        "rayClusterSpec": CLUSTER,
    },
    "RayService": {"serveConfigV2": TEXT, "upgradeStrategy": OF_KUBERNETES, "rayClusterConfig": CLUSTER},
}


def wrong(value: Any, known: Any, place: str) -> Iterator[str]:
    """Places whose field KubeRay does not have, or has with another type."""
    if isinstance(known, list):
        for i, each in enumerate(value):
            yield from wrong(each, known[0], f"{place}[{i}]")
    elif isinstance(known, dict):
        for name, each in value.items():
            below = known.get(name, known.get("*"))
            if below is None:
                yield f"{place}.{name}"
            else:
                yield from wrong(each, below, f"{place}.{name}")
    elif type(value) is not known:
        yield f"{place}: {type(value).__name__}"


@pytest.mark.parametrize("resource", [JOB, SERVICE], ids=["job", "service"])
def test_kuberay_has_all_fields_that_are_set(resource: Object) -> None:
    assert resource["apiVersion"] == "ray.io/v1"
    assert list(wrong(resource["spec"], FIELDS[resource["kind"]], "spec")) == []
    # and the check sees what is wrong
    assert list(wrong({"entrypoints": "x", "backoffLimit": "5"}, FIELDS["RayJob"], "spec")) == [
        "spec.entrypoints",
        "spec.backoffLimit: str",
    ]


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_head_declares_every_port_that_the_operator_asks_for(name: str) -> None:
    """service.go, getServicePorts: default ports are added only where the head declares none at all;
    FetchHeadServiceURL asks for the one named dashboard, BuildServeService for one named serve."""
    (head,) = CLUSTERS[name]["headGroupSpec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in head["ports"]}
    defaults = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080}
    assert ports == (defaults | {"serve": 8000} if name == "service" else defaults)


def test_accounts_and_secrets_and_claims_that_are_named_are_made() -> None:
    """raycluster_controller.go, reconcileAutoscalerServiceAccount: an account that is named is not made for you."""
    made = {o["metadata"]["name"] for o in objects("platform") if o["kind"] == "ServiceAccount"}
    claims = {o["metadata"]["name"] for o in objects("platform") if o["kind"] == "PersistentVolumeClaim"}
    assert made == {"ray-head", "ray-worker"}
    for name, pod in PODS.items():
        assert pod.get("serviceAccountName", "default") in made | {"default"}, name
        for volume in pod.get("volumes", []):
            assert volume.get("secret", {}).get("secretName", "ray-token") in SECRETS, name
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "mlflow") in claims, name
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or reference["key"] in SECRETS[reference["name"]], name
            for source in container.get("envFrom", []):
                assert source == {"configMapRef": {"name": "values"}}
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in pod.get("volumes", [])}, name
    for cluster in CLUSTERS.values():
        # authOptions.secretName: the secret must have the key auth_token (raycluster_types.go)
        assert "auth_token" in SECRETS[cluster["authOptions"]["secretName"]]
        redis = cluster.get("gcsFaultToleranceOptions", {}).get("redisPassword", {}).get("valueFrom")
        assert redis is None or redis["secretKeyRef"]["key"] in SECRETS[redis["secretKeyRef"]["name"]]


def test_workers_and_clients_get_no_token_for_kubernetes() -> None:
    account = one("ServiceAccount", "ray-worker")
    assert account["automountServiceAccountToken"] is False
    for name, pod in PODS.items():
        if pod.get("serviceAccountName") != "ray-head" and name != "mlflow":
            assert pod["automountServiceAccountToken"] is False, name
    assert {name for name, pod in PODS.items() if pod.get("serviceAccountName") == "ray-head"} == {
        "job head",
        "service head",
    }


def test_names_are_short_and_services_that_are_asked_are_made() -> None:
    """validation.go: at most 53 - 6 characters and a DNS label; util.go: NAME-head-svc and NAME-serve-svc."""
    for resource in (JOB, SERVICE):
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", resource["metadata"]["name"])
        assert len(resource["metadata"]["name"]) <= 47
    made = {o["metadata"]["name"] for o in objects(*PARTS) if o["kind"] == "Service"}
    name = SERVICE["metadata"]["name"]
    made |= {f"{name}-head-svc", f"{name}-serve-svc"}
    asked = {VALUES["MLFLOW_TRACKING_URI"], CLUSTERS["service"]["gcsFaultToleranceOptions"]["redisAddress"]}
    follower = yaml.safe_dump(one("Deployment", "follower"))
    asked |= set(re.findall(r"http://[\w.:-]+", follower))
    assert {re.sub(r"^http://|:\d+$", "", place) for place in asked} == {
        "mlflow", "redis", f"{name}-head-svc", f"{name}-serve-svc"}  # fmt: skip
    assert {"mlflow", "redis", f"{name}-head-svc", f"{name}-serve-svc"} <= made


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_pass_the_operators_own_validation(name: str) -> None:
    """validation.go, ValidateRayClusterSpec, of what is used here."""
    cluster = CLUSTERS[name]
    pinned = re.search(r"^ray==(\S+)", (ROOT / "requirements-run.txt").read_text(), re.MULTILINE)
    assert pinned
    assert cluster["rayVersion"] == pinned[1]
    version = tuple(map(int, cluster["rayVersion"].split(".")))
    assert version >= (2, 56)  # of priority; 2.52 of the token
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for group in GROUPS[name]:
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never"  # of autoscaler v2
        assert not group.get("resources")  # not beside num-cpus
        assert "labels" not in group["rayStartParams"]
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    head = cluster["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"  # it leads only
    variables = {each["name"] for each in head["template"]["spec"]["containers"][0].get("env", [])} | set(VALUES)
    assert not variables & {"REDIS_PASSWORD", "RAY_REDIS_ADDRESS", "REDIS_USERNAME", "RAY_enable_autoscaler_v2"}


def test_spot_comes_before_on_demand() -> None:
    groups = {g["groupName"]: g for g in CLUSTERS["job"]["workerGroupSpecs"]}
    assert groups["gpu-spot"]["priority"] > groups["gpu-on-demand"]["priority"]
    sizes = [g["template"]["spec"]["containers"][0]["resources"] for g in groups.values()]
    assert sizes[0] == sizes[1]  # autoscaler v2 compares priorities of what fits equally well
    kinds = [g["template"]["spec"]["nodeSelector"]["karpenter.sh/capacity-type"] for g in groups.values()]
    assert kinds == ["spot", "on-demand"]


def test_a_training_is_planned_with_the_nodes_that_its_groups_may_have() -> None:
    from pipelines.cluster.planning.known_nodes import ADDABLE, parsed_types
    from pipelines.cluster.planning.resource_plan import NodeKind

    (head,) = CLUSTERS["job"]["headGroupSpec"]["template"]["spec"]["containers"]
    (words,) = [variable["value"] for variable in head["env"] if variable["name"] == ADDABLE]
    kinds = []
    for group in CLUSTERS["job"]["workerGroupSpecs"]:
        has = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        kinds.append(NodeKind(group["maxReplicas"], float(has["cpu"]), float(has.get("nvidia.com/gpu", 0))))
    assert parsed_types(words) == tuple(kinds)


def test_a_mistake_is_not_tried_again_and_a_lost_head_is() -> None:
    """rayjob_controller.go, checkBackoffLimitAndUpdateStatusIfNeeded: backoffLimit starts a cluster for any failed job;
    job.go, BuildJobSubmitCommand: in K8sJobMode a submitter that starts again submits only what Ray does not know."""
    spec = JOB["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["submissionMode"] == "K8sJobMode"
    assert spec["submitterConfig"]["backoffLimit"] >= 5
    assert spec["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
    (submitter,) = spec["submitterPodTemplate"]["spec"]["containers"]
    assert "command" not in submitter  # else KubeRay's own is not used
    assert 0 < spec["preRunningDeadlineSeconds"] < spec["activeDeadlineSeconds"]
    assert spec["shutdownAfterJobFinishes"]  # ttlSecondsAfterFinished needs it
    gpus = [g["replicas"] for g in CLUSTERS["job"]["workerGroupSpecs"]]
    assert sum(gpus) >= 1  # preRunningDeadlineSeconds waits for these


def test_the_endpoint_survives_its_head_and_one_node() -> None:
    spread = CLUSTERS["service"]["workerGroupSpecs"][0]["template"]
    label = spread["metadata"]["labels"]["app.kubernetes.io/name"]
    hosts = [
        each for each in spread["spec"]["topologySpreadConstraints"] if each["topologyKey"] == "kubernetes.io/hostname"
    ]
    assert hosts[0]["whenUnsatisfiable"] == "DoNotSchedule"
    budget = one("PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    for selector in (hosts[0]["labelSelector"], budget["selector"]):
        assert selector["matchLabels"] == {"app.kubernetes.io/name": label}
    assert CLUSTERS["service"]["workerGroupSpecs"][0]["minReplicas"] >= 2
    assert CLUSTERS["service"]["gcsFaultToleranceOptions"]["redisAddress"] == "redis:6379"
    assert re.fullmatch(r"\d+[smh]", SERVICE["metadata"]["annotations"]["ray.io/initializing-timeout"])


@pytest.mark.parametrize("name", PODS)
def test_no_pod_is_root_and_each_has_bounds(name: str) -> None:
    """The namespace enforces Kubernetes' restricted standard; a user that is a name could not be checked."""
    pod = PODS[name]
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert isinstance(security["runAsUser"], int)
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert all("hostPath" not in volume for volume in pod.get("volumes", []))
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_images_user_is_the_pods() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)[-1] == "1000"
    of_ours = {pod["securityContext"]["runAsUser"] for name, pod in PODS.items() if name != "redis"}
    assert of_ours == {1000}


def test_network_is_closed_but_for_what_is_named() -> None:
    policies = {o["metadata"]["name"]: o["spec"] for o in objects("platform") if o["kind"] == "NetworkPolicy"}
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert set(policies) == {"closed", "ray", "mlflow", "redis"}
    for name in ("ray", "mlflow", "redis"):
        for rule in policies[name]["ingress"]:
            assert rule["from"], name  # an empty list would be everybody
            for source in rule["from"]:
                # without a pod's label a source is a whole namespace: only labelled ones, and only the two open ports
                if "podSelector" not in source:
                    assert source["namespaceSelector"]["matchLabels"]
                    assert rule["ports"] in ([{"port": 8000}], [{"port": 8080}])
    inside, *others = policies["ray"]["ingress"]
    assert inside["from"] == [{"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}]
    assert all(rule["ports"] for rule in others)
    opened = {port["port"] for rule in others for port in rule["ports"]}
    assert 6379 not in opened  # Ray's control store
    assert 10001 not in opened  # Ray's client
    labels = one("Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_entrypoint_is_a_job_with_a_valid_command_line() -> None:
    from jobs import train_imagenet
    from pipelines import command_line
    from pipelines.run import Run, standard

    line = JOB["spec"]["entrypoint"].replace("$RESNET_BUCKET", VALUES["RESNET_BUCKET"])
    assert "$" not in line
    python, script, recipe, *options = shlex.split(line)
    assert python == "python"
    assert Path(script).name == Path(str(train_imagenet.__file__)).name
    run = command_line.parse_arguments(Run, standard(recipe), options, "")
    assert run.storage == "s3://REPLACE/runs"
    assert run.data.path == "s3://REPLACE/shards"
    gpus = sum(g["maxReplicas"] for g in CLUSTERS["job"]["workerGroupSpecs"]) * 4
    assert run.scaling.most <= gpus
    assert run.scaling.least <= 4 * CLUSTERS["job"]["workerGroupSpecs"][0]["replicas"]


def serve_config() -> Object:
    text = SERVICE["spec"]["serveConfigV2"]
    assert text.split('"')[1] == "CHECKPOINT"  # which values/kustomization.yaml replaces
    return yaml.safe_load(text.replace("CHECKPOINT", VALUES["CHECKPOINT"]))


def test_the_follower_deploys_what_the_service_deploys() -> None:
    """With other arguments it would deploy the application anew, and KubeRay after it."""
    from pipelines import command_line
    from serve.deploy_settings import Deploy
    from serve.settings import Args, Settings

    script = one("Deployment", "follower")["spec"]["template"]["spec"]["containers"][0]["args"][0]
    words = shlex.split(script.replace("\\\n", " "))
    options = words[words.index("/home/ray/deep-residual-ray/jobs/deploy_best.py") + 1 :]
    asked = command_line.parse_arguments(Deploy, Deploy(), options, "")
    config = serve_config()
    args = Args(**config["applications"][0]["args"])
    assert {name: getattr(asked, name) for name in Settings.model_fields} == args.model_dump(
        include=set(Settings.model_fields)
    )
    assert asked.model == f"{args.name}@champion"
    assert (asked.host, asked.port) == (config["http_options"]["host"], config["http_options"]["port"])
    assert asked.follow


def test_the_endpoint_listens_to_the_network_with_keys_only() -> None:
    config = serve_config()
    assert config["http_options"]["host"] == "0.0.0.0"
    key_file = config["applications"][0]["args"]["api_key_file"]
    for group in GROUPS["service"]:
        spec = group["template"]["spec"]
        (mount,) = [m for m in spec["containers"][0]["volumeMounts"] if key_file.startswith(m["mountPath"])]
        (volume,) = [v for v in spec["volumes"] if v["name"] == mount["name"]]
        assert Path(key_file).name in SECRETS[volume["secret"]["secretName"]]


def test_all_values_stand_in_one_file() -> None:
    for path in sorted(FOLDER.rglob("*.yaml")):
        lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert path.name == "values.yaml" or not any("REPLACE" in line or "REGISTRY" in line for line in lines), path
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert VALUES["IMAGE"] == f"REGISTRY/deep-residual-ray:{version[1]}"


def test_every_manifest_is_applied() -> None:
    for part in PARTS:
        content = yaml.safe_load((FOLDER / part / "kustomization.yaml").read_text())
        there = {path.name for path in (FOLDER / part).glob("*.yaml")} - {"kustomization.yaml"}
        assert set(content["resources"]) == there
        assert content["components"] == ["../values"]
        assert content["namespace"] == one("Namespace")["metadata"]["name"]


@pytest.fixture
def secret_folder(tmp_path: Path) -> Path:
    """A copy of the manifests with secrets made as a user makes them."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("secrets"))
    for _ in range(2):  # the second call changes nothing
        subprocess.run(["bash", tmp_path / "kubernetes" / "make_secrets.sh"], check=True, capture_output=True)
    return tmp_path / "kubernetes"


def test_secrets_are_made_once_for_the_owner_only_and_git_ignores_them(secret_folder: Path) -> None:
    from serve.api.clients import parse_keys

    made = secret_folder / "platform" / "secrets"
    before = {path.name: path.read_text() for path in made.iterdir()}
    assert set(before) == {"ray_token", "redis_password", "api_keys"}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made.iterdir())
    assert re.fullmatch("[0-9a-f]{64}", before["ray_token"])
    assert len(parse_keys(before["api_keys"])) == 1
    subprocess.run(["bash", secret_folder / "make_secrets.sh"], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in made.iterdir()} == before
    assert "deploy/kubernetes/platform/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def kustomized(folder: Path) -> list[Object]:
    """What `kubectl apply -k` would send."""
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed")
def test_kustomize_puts_the_values_where_they_belong(secret_folder: Path) -> None:
    text = (secret_folder / "values" / "values.yaml").read_text()
    text = text.replace("REGISTRY/", "registry.example.org/").replace("s3://REPLACE", "s3://pictures")
    (secret_folder / "values" / "values.yaml").write_text(text.replace("role/REPLACE", "role/nodes"))
    found = [each for part in PARTS for each in kustomized(secret_folder / part)]
    assert {each["metadata"].get("namespace", "resnet") for each in found} == {"resnet"}
    rendered = yaml.safe_dump(found)
    assert "REPLACE" not in rendered
    images = set(re.findall(r"image: (\S+)", rendered))
    assert images == {"registry.example.org/deep-residual-ray:0.1.0", "redis:7.4"}
    (service,) = [each for each in found if each["kind"] == "RayService"]
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    assert application["args"]["checkpoint"] == "s3://pictures/runs/imagenet-resnet50-B.s0/best"
    accounts = [each for each in found if each["kind"] == "ServiceAccount"]
    assert {a["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] for a in accounts} == {
        "arn:aws:iam::111122223333:role/nodes"
    }
    assert {each["metadata"]["name"] for each in found if each["kind"] == "Secret"} == set(SECRETS)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which renders the manifests, is not installed")
def test_nothing_is_applied_without_secrets(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("secrets"))
    done = subprocess.run(
        ["kubectl", "kustomize", tmp_path / "kubernetes" / "platform"], capture_output=True, check=False
    )
    assert done.returncode != 0
