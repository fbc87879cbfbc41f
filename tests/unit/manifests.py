"""The manifests of deploy/ as data: as they are written, and as kustomize builds them where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BASE, GPU = DEPLOY / "base", DEPLOY / "overlays" / "gpu"
EXAMPLE = DEPLOY / "credentials.example.yaml"
COMPONENT = "app.kubernetes.io/component"

_BUILDERS = (("kustomize", "build"), ("kubectl", "kustomize"))
_UNITS = {"": 1.0, "m": 1e-3, "Mi": 2.0**20, "Gi": 2.0**30, "gb": 2.0**30}
Document = dict[str, Any]


@dataclass(frozen=True)
class Manifests:
    """Documents that are applied together."""

    documents: list[Document]

    def of(self, *kinds: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] in kinds]

    def one(self, kind: str, name: str) -> Document:
        (found,) = [each for each in self.of(kind) if each["metadata"]["name"] == name]
        return found

    @property
    def templates(self) -> dict[str, Document]:
        """The pod template of everything that runs, by its name."""
        return {
            each["metadata"]["name"]: each["spec"]["template"]
            for each in self.of("Deployment", "StatefulSet", "Job")
        }

    def pod(self, name: str) -> Document:
        return self.templates[name]["spec"]

    def container(self, name: str) -> Document:
        (container,) = self.pod(name)["containers"]
        return container

    def environment(self, name: str) -> dict[str, str]:
        """What the pod's one container itself says; `<path>` where the kubelet fills it in."""
        return {
            given["name"]: given.get("value") or f"<{given['valueFrom']['fieldRef']['fieldPath']}>"
            for given in self.container(name).get("env", [])
        }


def read(path: Path) -> list[Document]:
    return list(yaml.safe_load_all(path.read_text()))


def written(folder: Path) -> Manifests:
    """What the files say that the folder's kustomization names."""
    (kustomization,) = read(folder / "kustomization.yaml")
    return Manifests([document for name in kustomization["resources"] for document in read(folder / name)])


def built(folder: Path) -> Manifests:
    """What kustomize makes of the folder; skips the test where there is none."""
    found = [command for command in _BUILDERS if shutil.which(command[0])]
    if not found:
        pytest.skip("neither kustomize nor kubectl is installed here")
    ended = subprocess.run([*found[0], str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return Manifests(list(yaml.safe_load_all(ended.stdout)))


def settings_of_all() -> dict[str, str]:
    """What settings.env says."""
    lines = (BASE / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def quantity(text: str | float) -> float:
    """Kubernetes' or compose's way to write a number: 500m, 2Gi, 2gb."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()
    return float(number) * _UNITS[unit]


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses what bears these labels; an empty one chooses all."""
    expressions = selector.get("matchExpressions", [])
    assert {expression["operator"] for expression in expressions} <= {"In"}
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )
