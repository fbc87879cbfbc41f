"""Registered models are described one by one, whatever the code of one of them does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select

from shared.db.engine import make_engine, transaction
from shared.db.models import RegisteredModel
from shared.domain.flow import Flow
from shared.domain.module_tree import ModuleTree
from shared.settings import Settings
from worker import descriptions
from worker.descriptions import share_descriptions
from worker.registered import RegisteredModel as Offered

SOURCE = """
import os
from torch import nn

print("hello")

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4 * 8 * 8, 2)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))

class Leaving(Network):
    def forward(self, x):
        if self.training:
            os._exit(5)
        return super().forward(x)

def leaving_at_once():
    os._exit(3)

def endless():
    while True:
        pass

assert "THAW_DATABASE_URL" not in os.environ, "the worker's secrets"

Network.image_size = (8, 8)
"""


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return make_engine(settings.database_url.get_secret_value())


@pytest.fixture
def offered(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three models of a package that trainers find: one that is well, and two that end their process."""
    names = {"well": "Network", "leaves_in_training": "Leaving", "leaves_at_once": "leaving_at_once"}
    monkeypatch.setenv("THAW_DATABASE_URL", "postgresql://secret")
    (tmp_path / "odd_models.py").write_text(SOURCE)
    info = tmp_path / "odd_models-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd_models\nVersion: 1\n")
    lines = [f"{name} = odd_models:{target}" for name, target in (*names.items(), ("endless", "endless"))]
    (info / "entry_points.txt").write_text("\n".join(["[thaw.models]", *lines, ""]))
    settings.trainer_env = {"PYTHONPATH": str(tmp_path)}
    monkeypatch.setattr(descriptions, "registered_models", lambda: [Offered(n, "1", "abc") for n in names])
    return list(names)


def stored(engine: Engine) -> dict[str, dict[str, Any]]:
    with transaction(engine) as session:
        return {row.name: row.description for row in session.scalars(select(RegisteredModel))}


def test_a_model_that_ends_its_process_keeps_no_other_from_being_described(
    settings: Settings, engine: Engine, offered: list[str]
) -> None:
    share_descriptions(engine, settings)

    found = stored(engine)
    assert sorted(found) == sorted(offered)
    assert [step.module for step in Flow.from_data(found["well"]["flow"]).steps] == ["conv", "fc"]
    assert not {"error", "flow_error", "unfinished"} & found["well"].keys()
    assert "ended with exit code 3: hello" in found["leaves_at_once"]["error"]
    half = found["leaves_in_training"]
    assert ModuleTree.from_data(half["tree"]).blocks == ("conv",)
    assert "ended with exit code 5" in half["flow_error"]
    assert "error" not in half


def test_what_was_not_described_to_the_end_is_tried_again_and_the_rest_is_not(
    settings: Settings, engine: Engine, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, dict[str, Any]] = {
        "well": {"tree": 1},
        "leaves_at_once": {"error": "it ...", "unfinished": True},
        "leaves_in_training": {"error": "ModuleNotFoundError: of its node"},
    }
    asked: list[str] = []

    def tell(names: list[str], settings: Settings, limit_s: float) -> dict[str, dict[str, Any]]:
        asked.extend(names)
        return {name: told[name] for name in names}

    monkeypatch.setattr(descriptions, "_describe", tell)
    share_descriptions(engine, settings)
    told |= {"leaves_at_once": {"tree": 2}, "leaves_in_training": {"tree": 3}}
    share_descriptions(engine, settings)
    share_descriptions(engine, settings)

    again = ["leaves_at_once", "leaves_in_training"]
    assert (sorted(asked[:3]), sorted(asked[3:])) == (sorted(offered), again)
    assert stored(engine) == told


def test_a_model_that_never_ends_is_ended(
    settings: Settings, engine: Engine, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descriptions, "registered_models", lambda: [Offered("endless", "1", "abc")])
    share_descriptions(engine, settings, limit_s=1.5)
    found = stored(engine)["endless"]
    assert found["unfinished"] is True
    assert "took longer than 1.5 s" in found["error"]
