"""The manifests of deploy/ against the published schemas, built by kustomize; what the processes are told.

None of this runs them: that takes a cluster.
"""

from __future__ import annotations

import re
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from manifests import BASE, DEPLOY, EXAMPLE, GPU, ROOT, Manifests, built, read, settings_of_all, written

from shared.settings import Settings

VERSIONS = ("1.30", "1.37")
OURS = ("migrate", "api", "scheduler", "worker")


@pytest.fixture(scope="module", params=["base", "gpu"])
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return written(BASE) if request.param == "base" else built(GPU)


# The schemas.


def invalid(document: dict[str, Any], version: str) -> str | None:
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{document['kind']} {document['metadata']['name']}: {list(error.path)}: {error.message}"
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_each_manifest_is_what_its_schema_asks_for(manifests: Manifests, version: str) -> None:
    for document in [*manifests.documents, *read(EXAMPLE)]:
        assert invalid(document, version) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_see_a_misspelt_field_and_a_wrong_type(version: str) -> None:
    worker = written(BASE).one("StatefulSet", "worker")
    misspelt, wrong = deepcopy(worker), deepcopy(worker)
    (container,) = misspelt["spec"]["template"]["spec"]["containers"]
    container["securityContexts"] = container.pop("securityContext")
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "330s"

    assert "securityContexts" in invalid(misspelt, version)
    assert "330s" in invalid(wrong, version)


# kustomize.


@pytest.mark.parametrize("folder", [BASE, GPU], ids=["base", "gpu"])
def test_the_kustomization_names_every_file(folder: Path) -> None:
    (kustomization,) = read(folder / "kustomization.yaml")
    named = [
        *kustomization["resources"],
        *[patch["path"] for patch in kustomization.get("patches", [])],
        *[name for one in kustomization.get("configMapGenerator", []) for name in one["envs"]],
    ]

    files = sorted(path.name for path in folder.iterdir() if path.name != "kustomization.yaml")
    assert sorted(name for name in named if not name.startswith("..")) == files
    assert all((folder / name).exists() for name in named)


def test_kustomize_builds_what_is_written_with_the_settings_in_it() -> None:
    base = built(BASE)
    (settings,) = base.of("ConfigMap")
    names = {(each["kind"], each["metadata"]["name"]) for each in base.documents if each is not settings}

    assert names == {(each["kind"], each["metadata"]["name"]) for each in written(BASE).documents}
    assert settings["data"] == settings_of_all()
    for name in OURS:
        assert base.container(name)["envFrom"][0]["configMapRef"]["name"] == settings["metadata"]["name"]
        assert base.templates[name]["metadata"]["labels"]["app.kubernetes.io/name"] == "thaw"
    for each in base.documents:
        assert each["metadata"].get("namespace", "thaw") == "thaw"


def test_the_overlay_of_one_s_own_builds_as_the_document_shows_it(tmp_path: Path) -> None:
    told = (ROOT / "docs" / "kubernetes.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", told, flags=re.DOTALL)
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    own = tmp_path / "deploy" / "overlays" / "own"
    own.mkdir()
    (own / "kustomization.yaml").write_text(example)
    made = built(own)

    assert made.container("api")["image"].startswith("registry.example/")
    assert made.one("StatefulSet", "worker")["spec"]["replicas"] == 8
    (settings,) = made.of("ConfigMap")
    assert settings["data"].keys() > settings_of_all().keys()
    policy = made.one("NetworkPolicy", "all-to-postgres")
    assert policy["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "192.0.2.10/32"}}]
    assert [invalid(each, VERSIONS[-1]) for each in made.documents] == [None] * len(made.documents)


# What the processes are told.


def is_secret(field: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[field].annotation)


def test_every_pod_s_settings_exist_and_can_be_read(
    manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    (credentials,) = read(EXAMPLE)
    for name in OURS:
        sources = [next(iter(source.values()))["name"] for source in manifests.container(name)["envFrom"]]
        assert sources[0].startswith("settings")
        assert sources[1:] == [credentials["metadata"]["name"]]
        given = settings_of_all() | credentials["stringData"] | manifests.environment(name)
        assert {key.removeprefix("THAW_").lower() for key in given} <= Settings.model_fields.keys()
        with monkeypatch.context() as environment:
            for key, value in given.items():
                environment.setenv(key, value)
            Settings()


def test_secrets_are_named_and_never_told(manifests: Manifests) -> None:
    (credentials,) = read(EXAMPLE)
    secret = {f"THAW_{field.upper()}" for field in Settings.model_fields if is_secret(field)}

    assert credentials["stringData"].keys() == secret
    for value in credentials["stringData"].values():
        told = re.split(r"\W+", value.partition("://")[2] or value)
        assert all(word.isupper() or word.isdigit() or not word for word in told), "placeholders alone"
    assert not manifests.of("Secret")
    assert not secret & settings_of_all().keys()
    for name in OURS:
        assert not secret & manifests.environment(name).keys()
    assert "/deploy/credentials.yaml" in (ROOT / ".gitignore").read_text().splitlines()
