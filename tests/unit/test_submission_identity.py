"""When two requests are the same: as they were understood, not as they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.idempotency import request_sha256
from shared.domain.job_kind import JobKind
from shared.domain.spec import JobSpec

BODY: dict[str, Any] = {
    "model": "resnet18",
    "training_file": "file-1",
    "validation_fraction": 0.2,
    "freeze": {"rules": [{"freeze": "conv1"}, {"train": "layer4", "lr_scale": 0.1}]},
    "hyperparameters": {"n_epochs": 3, "learning_rate": 1},
    "preprocessing": {"image_size": [24, 40]},
    "metadata": {"a": "1", "b": "2"},
}


def identity(body: dict[str, Any]) -> str:
    return request_sha256(JobKind.FINE_TUNING, JobSpec.model_validate(body))


def shuffled(value: Any, random: Any) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key], random) for key in keys}
    return [shuffled(one, random) for one in value] if isinstance(value, list) else value


@given(random=st.randoms(use_true_random=False), indent=st.sampled_from([None, 2]))
def test_layout_and_the_order_of_keys_say_nothing(random: Any, indent: int | None) -> None:
    assert identity(json.loads(json.dumps(shuffled(BODY, random), indent=indent))) == identity(BODY)


@pytest.mark.parametrize(
    "spelled_out",
    [
        {"seed": 0},
        {"task": "classification"},
        {"resources": {}},
        {"resources": {"nodes": 1}},
        {"head": None},
        {"hyperparameters": {"n_epochs": 3, "learning_rate": 1.0, "optimizer": "adamw"}},
        {
            "freeze": {
                "rules": [{"freeze": ["conv1"]}, {"train": ["layer4"], "lr_scale": 0.1}],
                "schedule": [],
            }
        },
    ],
    ids=str,
)
def test_what_is_meant_anyway_may_be_spelled_out(spelled_out: dict[str, Any]) -> None:
    assert identity({**BODY, **spelled_out}) == identity(BODY)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"training_file": "file-2"},
        {"metadata": {"a": "2", "b": "1"}},
        {"metadata": None},
        {"preprocessing": {"image_size": [40, 24]}},
        {"freeze": {"rules": [{"train": "layer4", "lr_scale": 0.1}, {"freeze": "conv1"}]}},
        {"freeze": {"rules": [{"train": "conv1"}, {"train": "layer4", "lr_scale": 0.1}]}},
        {"hyperparameters": {"n_epochs": 3, "learning_rate": 1, "optimizer": "sgd"}},
    ],
    ids=str,
)
def test_what_is_meant_otherwise_is_another_request(changed: dict[str, Any]) -> None:
    assert identity({**BODY, **changed}) != identity(BODY)
