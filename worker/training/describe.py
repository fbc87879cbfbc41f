"""Describes networks for processes that have no torch.

python -m worker.training.describe registered NAME... registered models, a line of JSON each
python -m worker.training.describe catalog OUT       torchvision's models, a file each, into OUT
python -m worker.training.describe flows OUT         how data flows through them, a file each, into OUT
python -m worker.training.describe outputs OUT       what their modules put out, a file each, into OUT
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from shared import catalog
from shared.catalog.catalog import write
from shared.catalog.flow import write_flow
from shared.catalog.outputs import write_outputs
from shared.domain.errors import ThawError
from shared.domain.module_tree import REPLACEABLE_HEADS, ModuleTree
from shared.domain.spec import TaskName
from worker.training.catalog_source import model_names, read_flow, read_model, read_outputs
from worker.training.describing_apart import Tell, described_apart
from worker.training.flow_recording import record_flow
from worker.training.models import own_head, registered_builder, replace_head
from worker.training.module_outputs import record_outputs, with_classes_at
from worker.training.network_tree import describe_module
from worker.training.own_steps.reading import has_forward, own_steps

# Why no flow is recorded of a network that is not trained through its forward.
OWN_STEPS = "its own training steps call its parts in ways of their own"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    registered = commands.add_parser("registered")
    registered.add_argument("names", nargs="+")
    registered.add_argument("--limit-s", type=float, default=300.0, help="for each model")
    for name in _WRITERS:
        commands.add_parser(name).add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "registered":
        for name in arguments.names:
            described = described_apart(partial(tell_registered, name), arguments.limit_s)
            sys.stdout.write(json.dumps({"name": name, **described}) + "\n")
            sys.stdout.flush()
    else:
        write_all(arguments.out, _WRITERS[arguments.command])


def tell_registered(name: str, tell: Tell) -> None:
    """The description, and then the flow: what ends the process between leaves what was told."""
    described = describe_registered(name)
    tell(described)
    if described.get("task") == "custom":
        tell({"flow": None, "flow_error": OWN_STEPS})
    elif "error" not in described:
        tell(describe_flow(name, described["image_size"]))


def describe_registered(name: str) -> dict[str, Any]:
    """The model's tree, head, picture size, task and outputs, or the error that it raised."""
    try:
        return _read_registered(name)
    except Exception as error:  # whatever a registered model's own code raises is for the operator to see
        place = f"{error.param}: " if isinstance(error, ThawError) and error.param else ""
        return {"error": f"{type(error).__name__}: {place}{error}"}


def describe_flow(name: str, image_size: list[int] | None) -> dict[str, Any]:
    """The model's flow, or null and as `flow_error` why there is none."""
    if image_size is None:
        return {"flow": None, "flow_error": "its package tells no picture size"}
    height, width = image_size
    try:
        flow = record_flow(lambda _size: registered_builder(name)(), (height, width))
    except Exception as error:
        return {"flow": None, "flow_error": f"{type(error).__name__}: {error}"}
    return {"flow": flow.to_data()}


def write_all(out: Path, write_one: Callable[[str, Path], None]) -> None:
    """A file for each of torchvision's models; the same bytes for the same model."""
    out.mkdir(parents=True, exist_ok=True)
    for name in model_names():
        write_one(name, out)


def _read_registered(name: str) -> dict[str, Any]:
    if name in catalog.names():
        raise ValueError(f"{name!r} is the name of a torchvision model; register it under another")
    builder = registered_builder(name)
    task = _task_of(builder)
    size, model = getattr(builder, "image_size", None), builder()
    image_size = [int(side) for side in size] if size and has_forward(model) else None
    tree = describe_module(model, own_head(builder), torch.zeros(2, 3, *image_size) if image_size else None)
    told: dict[str, Any] = {"tree": tree.to_data(), "head": list(tree.head), "task": task}
    told["image_size"] = list(size) if size else None
    if task == "custom":
        told["training_steps"] = [step.model_dump() for step in own_steps(model, tree)]
    return told | (_outputs_of(name, tree, image_size) if image_size else {})


def _task_of(builder: Any) -> str:
    task = getattr(builder, "task", "classification")
    if task not in get_args(TaskName):
        raise ValueError(f"its task is {task!r}; the tasks are {', '.join(get_args(TaskName))}")
    return str(task)


def _outputs_of(name: str, tree: ModuleTree, image_size: list[int]) -> dict[str, Any]:
    """What its modules put out; nothing where the network takes no other batch or number of classes.

    It can be trained all the same: whether an output can be saved is then found out by the trainer.
    """
    height, width = image_size
    try:
        outputs = record_outputs(registered_builder(name)(), (height, width))
        if tree.head and all(tree.by_path[path].class_name in REPLACEABLE_HEADS for path in tree.head):
            other = registered_builder(name)()
            replace_head(other, tree.head, (tree.num_classes or 0) + 1)
            outputs = with_classes_at(outputs, record_outputs(other, (height, width)))
    except Exception:  # whatever a registered model's own code raises
        return {}
    return {"outputs": outputs.to_data()}


_WRITERS: Mapping[str, Callable[[str, Path], None]] = {
    "catalog": lambda name, out: write(read_model(name), out),
    "flows": lambda name, out: write_flow(name, read_flow(name), out),
    "outputs": lambda name, out: write_outputs(name, read_outputs(name), out),
}


if __name__ == "__main__":
    main()
