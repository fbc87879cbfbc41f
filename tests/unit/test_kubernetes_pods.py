"""The pods of deploy/ against the images, the compose file, the API's routes and the settings' numbers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from manifests import BASE, GPU, ROOT, Manifests, built, quantity, written

from api.routes.system import router
from shared.domain.job import STOP_GRACE_S, StopReason
from shared.settings import Settings

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
OURS = ("migrate", "api", "scheduler", "worker")
# What the Pod Security Standard `baseline` lets a container add.
BASELINE = {
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
}
ENDING_S = 15.0  # what is left is killed, the slots are looked at, the end is written down


@pytest.fixture(scope="module", params=["base", "gpu"])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return written(BASE) if request.param == "base" else built(GPU)


def compose_of(manifests: Manifests, name: str) -> dict[str, Any]:
    """The service of the compose file that is the same thing."""
    has_gpus = "nvidia.com/gpu" in manifests.container(name)["resources"]["limits"]
    return COMPOSE[f"{name}-gpu" if has_gpus else name]


# The images, as the compose file uses them.


def test_the_images_and_their_commands_are_those_of_the_compose_file(manifests: Manifests) -> None:
    for name in OURS:
        container, service = manifests.container(name), compose_of(manifests, name)
        assert container["image"] == service["image"]
        assert "args" not in container
        command = service.get("command", [])
        without_key = [word.replace(" --key-file /var/lib/thaw/admin-key", "") for word in command]
        assert container.get("command", []) == without_key, "no command: the image's own"


def test_the_rights_are_those_of_the_compose_file(manifests: Manifests) -> None:
    for name in OURS:
        pod, container, service = manifests.pod(name), manifests.container(name), compose_of(manifests, name)
        rights = container["securityContext"]
        assert rights["capabilities"]["drop"] == service["cap_drop"] == ["ALL"]
        assert rights["capabilities"].get("add", []) == service.get("cap_add", [])
        assert set(rights["capabilities"].get("add", [])) <= BASELINE
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert rights["allowPrivilegeEscalation"] is False
        assert pod["shareProcessNamespace"] == service["init"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}


@pytest.mark.parametrize("name", ["migrate", "api", "scheduler"])
def test_the_pod_runs_as_its_image_s_user(manifests: Manifests, name: str) -> None:
    dockerfile = ROOT / COMPOSE[name]["build"]["dockerfile"]
    (user,) = re.findall(r"^USER (\d+)$", dockerfile.read_text(), flags=re.MULTILINE)
    rights = manifests.pod(name)["securityContext"]

    assert rights["runAsNonRoot"] is True
    assert rights["runAsUser"] == rights["runAsGroup"] == int(user)


@pytest.mark.parametrize("name", ["api", "scheduler", "worker"])
def test_a_stop_may_take_as_long_as_in_the_compose_file(manifests: Manifests, name: str) -> None:
    grace_s = manifests.pod(name)["terminationGracePeriodSeconds"]

    assert f"{grace_s}s" == compose_of(manifests, name)["stop_grace_period"]


# The API.


def test_the_api_is_asked_at_the_port_and_the_routes_that_it_has(manifests: Manifests) -> None:
    container, service = manifests.container("api"), manifests.one("Service", "api")
    (port,) = container["ports"]
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    paths = {route.path for route in router.routes}

    assert [probes[kind]["path"] for kind in probes] == ["/healthz", "/healthz", "/readyz"]
    assert {probe["path"] for probe in probes.values()} <= paths
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    command = (ROOT / "docker" / "api.Dockerfile").read_text().rpartition("CMD ")[2]
    assert json.loads(command)[-2:] == ["--port", str(port["containerPort"])]


def test_the_api_has_room_for_the_largest_upload(manifests: Manifests) -> None:
    (volume,) = manifests.pod("api")["volumes"]
    (mount,) = manifests.container("api")["volumeMounts"]
    largest = Settings.model_fields["max_upload_bytes"].default

    assert mount == {"name": volume["name"], "mountPath": "/tmp"}
    assert quantity(volume["emptyDir"]["sizeLimit"]) >= 2 * largest
    assert quantity(manifests.container("api")["resources"]["requests"]["ephemeral-storage"]) >= largest


# The nodes.


def test_a_node_s_name_and_folder_outlive_its_pod(manifests: Manifests) -> None:
    (claim,) = manifests.one("StatefulSet", "worker")["spec"]["volumeClaimTemplates"]
    environment = manifests.environment("worker")
    mounts = {one["name"]: one["mountPath"] for one in manifests.container("worker")["volumeMounts"]}

    assert environment["THAW_NODE_NAME"] == "<metadata.name>"
    assert environment["THAW_ADVERTISE_HOST"] == "<status.podIP>"
    assert mounts[claim["metadata"]["name"]] == environment["THAW_WORK_DIR"]
    assert environment["THAW_WORK_DIR"] == str(Settings.model_fields["work_dir"].default)
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    storage = quantity(claim["spec"]["resources"]["requests"]["storage"])
    assert storage >= 1.5 * Settings.model_fields["cache_bytes"].default


def test_a_node_may_take_as_long_as_its_jobs_to_leave(manifests: Manifests) -> None:
    heard_within_s = sum(Settings.model_fields[name].default for name in ("node_heartbeat_s", "renew_s"))
    grace_s = manifests.pod("worker")["terminationGracePeriodSeconds"]

    assert grace_s >= heard_within_s + STOP_GRACE_S[StopReason.DRAIN] + ENDING_S


def test_ranks_share_the_pod_s_cores_and_its_shared_memory(manifests: Manifests) -> None:
    environment, pod = manifests.environment("worker"), manifests.pod("worker")
    resources = manifests.container("worker")["resources"]
    slots = int(environment.get("THAW_SLOTS") or resources["limits"]["nvidia.com/gpu"])
    threads = int(json.loads(environment["THAW_TRAINER_ENV"])["OMP_NUM_THREADS"])
    (shm,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm"]

    assert threads * slots == quantity(resources["requests"]["cpu"])
    assert {"name": "shm", "mountPath": "/dev/shm"} in manifests.container("worker")["volumeMounts"]
    assert shm["medium"] == "Memory"
    assert quantity(shm["sizeLimit"]) >= quantity(compose_of(manifests, "worker")["shm_size"])
    assert quantity(shm["sizeLimit"]) <= quantity(resources["limits"]["memory"]) / 4


def test_a_gpu_node_counts_its_gpus_itself() -> None:
    worker = built(GPU)

    assert worker.container("worker")["resources"]["limits"]["nvidia.com/gpu"] >= 1
    assert "THAW_SLOTS" not in worker.environment("worker")
    assert written(BASE).environment("worker")["THAW_SLOTS"]


def test_what_is_evicted_leaves_something_running(manifests: Manifests) -> None:
    for running in manifests.of("Deployment", "StatefulSet"):
        name, spec = running["metadata"]["name"], running["spec"]
        budget = manifests.one("PodDisruptionBudget", name)["spec"]
        assert spec["replicas"] >= 2
        assert budget["selector"] == spec["selector"]
        assert budget.get("minAvailable", spec["replicas"] - budget.get("maxUnavailable", 0)) >= 1
