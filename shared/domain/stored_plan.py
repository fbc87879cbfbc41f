"""A job's `freeze_plan` as the database keeps it: the freeze plan's own fields, and its figures beside them.

Jobs of earlier versions have no figures; whoever reads only the freeze plan needs to know nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.domain.freeze_plan import FreezePlan

_FIGURES = "figures"


def to_store(shown: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as the API shows it (plain JSON values), parted into freeze plan and figures."""
    own = {name: shown[name] for name in FreezePlan.model_fields}
    return {**own, _FIGURES: {name: value for name, value in shown.items() if name not in own}}


def to_show(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What `to_store` parted, in one again."""
    return {**_own(stored), **(stored.get(_FIGURES) or {})}


def freeze_plan_in(stored: Mapping[str, Any]) -> FreezePlan:
    """What the trainer needs of it."""
    return FreezePlan.model_validate(_own(stored))


def _own(stored: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stored.items() if name != _FIGURES}
