"""A job as a person writes it: a YAML file, changed by `path=value`, that may name data on this machine."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from thaw.errors import UsageError

FILE_FIELDS = ("training_file", "validation_file", "input_file", "weights")
_FILE_ID = "file-"


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key given twice, and reads 1e-3 as the number it looks like."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            problem = f"{key!r} is no field's name; put it in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        if key in found:
            raise yaml.MarkedYAMLError(problem=f"{key!r} is given twice", problem_mark=key_node.start_mark)
        found[key] = loader.construct_object(value, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 wants a point and a sign: without this, 1e-3 would be a text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def load(path: Path, changes: Iterable[str] = ()) -> dict[str, Any]:
    """The job in `path` with each `path=value` applied in turn, its local data as absolute paths.

    Local paths in the file are relative to the file; those in a change are relative to the current folder.
    Raises UsageError on anything that cannot be read as a job.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8, and a job file is YAML: {error}") from error
    job = _read(text, str(path))
    if not isinstance(job, dict):
        raise UsageError(f"{path}: a job is a mapping of fields, such as `model: resnet18`")
    _make_absolute(job, path.resolve().parent)
    for change in changes:
        apply(job, change)
    _make_absolute(job, Path.cwd())
    return job


def apply(job: dict[str, Any], change: str) -> None:
    """Set one value: `hyperparameters.n_epochs=5`, `freeze.rules.0.freeze=conv1`. The value is read as YAML.

    Raises UsageError on a change without `=`, or one that goes through something that holds no fields.
    """
    path, equals, text = change.partition("=")
    steps = path.strip().split(".")
    if not equals or not all(steps):
        raise UsageError(f"--set {change}: write it as path=value, such as hyperparameters.n_epochs=5")
    value = _read(text, f"--set {change}")
    holder: Any = job
    for depth, step in enumerate(steps[:-1]):
        holder = _enter(holder, step, change, ".".join(steps[: depth + 1]))
    _put(holder, steps[-1], value, change)


def changes_in(changes: Iterable[str]) -> dict[str, Any]:
    """What each `path=value` says, together, as for a job that has no fields yet. Raises UsageError."""
    made: dict[str, Any] = {}
    for change in changes:
        apply(made, change)
    return made


def local_files(job: Mapping[str, Any]) -> dict[str, Path]:
    """The fields of a loaded job that name data on this machine."""
    return {field: Path(job[field]) for field in FILE_FIELDS if _is_local(field, job.get(field))}


def _read(text: str, where: str) -> Any:
    """The value that a YAML text stands for, if JSON can carry it."""
    try:
        value = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    # A date such as 2026-13-01 is a ValueError of datetime's.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no YAML: {_in_a_line(error)}") from error
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{where}: {error}; a job is made of texts, finite numbers, true, false, null, lists and mappings"
        ) from error
    return value


def _enter(holder: Any, step: str, change: str, so_far: str) -> Any:
    if isinstance(holder, dict):
        if holder.get(step) is None:
            holder[step] = {}
        inner = holder[step]
    else:
        inner = holder[_index(holder, step, change)]
    if not isinstance(inner, dict | list):
        raise UsageError(f"--set {change}: {so_far} is {inner!r} and has no fields; set {so_far} as a whole")
    return inner


def _put(holder: Any, step: str, value: Any, change: str) -> None:
    if isinstance(holder, dict):
        holder[step] = value
    else:
        holder[_index(holder, step, change)] = value


def _index(items: list[Any], step: str, change: str) -> int:
    if not step.isdecimal() or int(step) >= len(items):
        raise UsageError(f"--set {change}: {step!r} is no place in a list of {len(items)}, counted from 0")
    return int(step)


def _make_absolute(job: dict[str, Any], folder: Path) -> None:
    for field, path in local_files(job).items():
        job[field] = os.path.realpath(folder / os.path.expanduser(path))  # leaves ~nobody as it is


def _is_local(field: str, value: Any) -> bool:
    if not isinstance(value, str) or not value or "\0" in value or value.startswith(_FILE_ID):
        return False
    # Weights may also be a word, such as DEFAULT or IMAGENET1K_V2.
    return field != "weights" or "/" in value or value.endswith(".safetensors")


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split())
