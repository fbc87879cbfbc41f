"""The images and the compose file, checked as far as they can be without building them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from image_environment import ROOT, Dockerfile, ImageEnvironment

from shared.settings import Settings

pytestmark = pytest.mark.slow

IMAGES = ["api", "scheduler", "worker"]
COMPOSE = ROOT / "docker-compose.yml"
OURS = ["migrate", "api", "scheduler", "worker", "worker-gpu"]

IMPORT_ALL = """
import importlib, pathlib, sys, traceback
failed = []
for top in sys.argv[1:]:
    for path in sorted(pathlib.Path(top).rglob("*.py")):
        parts = path.with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if parts[-1] == "__main__":
            continue
        try:
            importlib.import_module(name)
        except Exception:
            failed.append(name + ": " + traceback.format_exc(limit=-1).splitlines()[-1])
print("torch" in sys.modules)
print(*failed, sep="\\n", file=sys.stderr)
sys.exit(bool(failed))
"""


def _dockerfile(image: str) -> Dockerfile:
    return Dockerfile.read(ROOT / "docker" / f"{image}.Dockerfile")


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ImageEnvironment]:
    built: dict[str, ImageEnvironment] = {}

    def get(image: str) -> ImageEnvironment:
        if image not in built:
            built[image] = ImageEnvironment.build(_dockerfile(image), tmp_path_factory.mktemp(image))
        return built[image]

    return get


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_installs_its_own_extra_with_pinned_versions(image: str) -> None:
    dockerfile = _dockerfile(image)

    assert dockerfile.extra == image
    assert dockerfile.pip_install == ["-c", "constraints.txt", f".[{image}]"]


@pytest.mark.parametrize("image", ["api", "scheduler"])
def test_the_image_does_not_run_as_root(image: str) -> None:
    instructions = _dockerfile(image).instructions
    (user,) = _dockerfile(image).arguments("USER")

    assert user.isdigit()
    assert int(user) > 0
    after = [name for name, _ in instructions[instructions.index(("USER", user)) :]]
    assert not {"RUN", "COPY"} & set(after)


def test_the_worker_is_root_only_to_give_trainers_a_uid_of_their_own() -> None:
    environment = " ".join(_dockerfile("worker").arguments("ENV"))
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())

    assert "THAW_TRAINER_UID=10001" in environment
    for name in ("worker", "worker-gpu"):
        service = compose["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert set(service["cap_add"]) == {"CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID"}
        assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_is_sent_to_the_builder(image: str) -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    copies = [copy.split()[:-1] for copy in _dockerfile(image).arguments("COPY") if "--from" not in copy]

    assert rules[1] == "*"
    assert {source for sources in copies for source in sources} <= kept
    assert all((ROOT / path).exists() for path in kept)


# As far as each comes where no other server is: the API serves and is not ready, the others wait.
STARTED = {
    "api": "Application startup complete",
    "scheduler": "the database failed",
    "worker": "waits for a server",
}


@pytest.mark.parametrize("image", IMAGES)
def test_the_command_starts_with_the_image_s_own_files_and_packages(
    image: str, environment: Callable[[str], ImageEnvironment], tmp_path: Path
) -> None:
    python, *arguments = _dockerfile(image).command
    if image == "api":
        assert arguments[-2:] == ["--port", "8000"]
        arguments[-1] = "0"  # whatever port is free here
    output = environment(image).run_until(STARTED[image], *arguments, **_settings(tmp_path))

    assert python == "python"
    assert STARTED[image] in output


@pytest.mark.parametrize("image", IMAGES)
def test_every_module_of_the_image_finds_what_it_imports(
    image: str, environment: Callable[[str], ImageEnvironment]
) -> None:
    ended = environment(image).run("-c", IMPORT_ALL, "shared", image)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == str(image == "worker"), "torch is for the worker's image, and for it alone"


@pytest.mark.parametrize("image", ["api", "scheduler"])
@pytest.mark.parametrize("package", ["torch", "torchvision", "moto", "pytest"])
def test_the_image_is_without(
    image: str, package: str, environment: Callable[[str], ImageEnvironment]
) -> None:
    ended = environment(image).run("-c", f"import {package}")

    assert "ModuleNotFoundError" in ended.stderr


def test_the_api_s_image_makes_its_app_without_torch(environment: Callable[[str], ImageEnvironment]) -> None:
    program = "import sys; from api.main import create_app; print('torch' in sys.modules)"
    ended = environment("api").run("-c", program)

    assert (ended.stdout.strip(), ended.returncode) == ("False", 0), ended.stderr


def test_the_api_s_image_holds_the_migrations(environment: Callable[[str], ImageEnvironment]) -> None:
    heads = environment("api").run("-m", "alembic", "heads")
    bootstrap = environment("api").run("-m", "api.bootstrap", "--help")

    assert heads.stdout.count("(head)") == 1, heads.stderr
    assert "--key-file" in bootstrap.stdout, bootstrap.stderr


def test_the_migration_fails_for_want_of_a_database_alone(
    environment: Callable[[str], ImageEnvironment], tmp_path: Path
) -> None:
    ended = environment("api").run("-m", "alembic", "upgrade", "head", **_settings(tmp_path))

    assert ended.returncode != 0
    assert "connection refused" in ended.stderr.lower()


def _settings(folder: Path) -> dict[str, str]:
    """Servers of which none is there."""
    return {
        "THAW_DATABASE_URL": "postgresql+psycopg://u:p@127.0.0.1:9/d",
        "THAW_REDIS_URL": "redis://127.0.0.1:9/0",
        "THAW_STORE_URL": "s3://bucket/prefix",
        "THAW_S3_ENDPOINT": "http://127.0.0.1:9",
        "THAW_WORK_DIR": str(folder),
        "THAW_SLOTS": "1",
    }


# The compose file.


@pytest.fixture(scope="module")
def services() -> dict[str, dict]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_every_setting_in_the_compose_file_exists(services: dict[str, dict]) -> None:
    known = {f"THAW_{field.upper()}" for field in Settings.model_fields}
    given = {
        name
        for service in services.values()
        for name in service.get("environment", {})
        if name[:5] == "THAW_"
    }

    assert given <= known
    required = {
        f"THAW_{name.upper()}" for name, field in Settings.model_fields.items() if field.is_required()
    }
    for name in OURS:
        assert required <= set(services[name]["environment"])


def test_no_service_can_gain_rights(services: dict[str, dict]) -> None:
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service.get("user") != "root" or name == "store-folder"


def test_only_the_api_is_published(services: dict[str, dict]) -> None:
    assert [name for name, service in services.items() if service.get("ports")] == ["api"]
    assert [name for name, service in services.items() if "front" in service.get("networks", ())] == ["api"]
    assert yaml.safe_load(COMPOSE.read_text())["networks"]["back"] == {"internal": True}


def test_nodes_have_shared_memory_and_time_to_stop(services: dict[str, dict]) -> None:
    for name in ("worker", "worker-gpu"):
        assert services[name]["shm_size"] == "2gb"
        assert services[name]["stop_grace_period"] == "330s"
    assert services["worker-gpu"]["profiles"] == ["gpu"]


def test_builds_name_files_and_stages_that_exist(services: dict[str, dict]) -> None:
    for name in OURS:
        build = services[name]["build"]
        dockerfile = Dockerfile.read(ROOT / build["dockerfile"])
        stages = {line.partition(" AS ")[2] for line in dockerfile.arguments("FROM")}
        assert build.get("target", "") in stages | {""}
        arguments = {line.partition("=")[0] for line in dockerfile.arguments("ARG")}
        assert set(build.get("args", {})) <= arguments


def test_the_example_names_every_variable_of_the_compose_file() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(), flags=re.MULTILINE))

    assert set(example) == used
    for name, value in example.items():
        assert not (value and re.search("PASSWORD|KEY", name)), "no secret has a default"


def _compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("no docker client here")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("the docker client here has no compose")
    return subprocess.run(
        [docker, "compose", "--file", str(COMPOSE), "--env-file", os.devnull, *arguments],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SECRETS = ["POSTGRES_PASSWORD", "REDIS_PASSWORD", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"]


@pytest.mark.parametrize("profile", [[], ["--profile", "gpu"]])
def test_docker_reads_the_compose_file(profile: list[str]) -> None:
    ended = _compose(*profile, "config", "--quiet", **dict.fromkeys(SECRETS, "secret"))

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("missing", SECRETS)
def test_docker_refuses_to_start_without_a_secret(missing: str) -> None:
    ended = _compose("config", "--quiet", **{name: "secret" for name in SECRETS if name != missing})

    assert ended.returncode != 0
    assert missing in ended.stderr


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_s_copies_include_no_other_process(image: str) -> None:
    copied = {source for source, _ in _dockerfile(image).copies}

    assert image in copied
    assert not copied & ({*IMAGES, "devstack", "tests"} - {image})
    assert not any(fnmatch(source, ".*") for source in copied)
