"""Schemathesis asks every documented route for odd things: no answer may be a 5xx or leave the document."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import schemathesis
from api_house import api_on
from api_server import served
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import CHECKS
from schemathesis.generation import GenerationMode
from schemathesis.schemas import APIOperation

from shared.settings import Settings

BOUND_S = 60.0
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)


@pytest.mark.slow
def test_no_request_makes_the_server_fail_or_leave_its_document(settings: Settings, tmp_path: Path) -> None:
    with api_on(settings) as house, served(settings, tmp_path / "log") as address:
        file = house.data_set("a", "b")
        known = {"file_id": file, "job_id": house.job(training_file=file)["id"], "name": "resnet18"}
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        headers = {"Authorization": house.client.headers["Authorization"]}
        operations = [found.ok() for found in schema.get_all_operations()]
        until = time.monotonic() + BOUND_S
        share = BOUND_S / len(operations)
        tried = [
            _ask(operation, headers, known, min(until, time.monotonic() + share)) for operation in operations
        ]

    assert len(operations) > 15
    assert all(tried), dict(zip((operation.label for operation in operations), tried, strict=True))


def _ask(operation: APIOperation, headers: dict[str, str], known: dict[str, str], until: float) -> int:
    """How many requests were made of this route; every other one is about a thing that is there."""
    checks = [CHECKS.get_one(name) for name in CHECKED]
    fitting = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    odd = (
        operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) if _has_inputs(operation) else fitting
    )
    tried = 0

    @hypothesis_settings(
        max_examples=40,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=odd | fitting)
    def ask(case: schemathesis.Case) -> None:
        nonlocal tried
        if tried == 0 or time.monotonic() < until:
            if tried % 2:
                there = {name: known[name] for name in case.path_parameters if name in known}
                case.path_parameters.update(there)
            case.call_and_validate(headers=headers, checks=checks)
            tried += 1

    ask()
    return tried


def _has_inputs(operation: APIOperation) -> bool:
    return any(True for _ in operation.iter_parameters()) or bool(operation.body)
