"""`thaw models`: the networks that a job can begin from, and their layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from thaw.cli.output import Json, as_json, line, screen, table
from thaw.cli.session import server
from thaw.layers import Layers, Module


def list_models(ctx: typer.Context, json: Json = False) -> None:
    """Base models: torchvision's and those that the nodes have registered."""
    if ctx.invoked_subcommand:
        return
    with server(ctx) as thaw:
        found = thaw.models.list()
    if json:
        as_json(found)
        return
    rows = ((model["id"], model.get("task"), model.get("owned_by")) for model in found)
    table(("model", "task", "from"), rows)


def show_model(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="As `thaw models` lists it.")],
    json: Json = False,
) -> None:
    """The layer tree of a model, its head, and its blocks. first:N and last:N count these in their order."""
    with server(ctx) as thaw:
        raw = thaw.models.layers(name)
    if json:
        as_json(raw)
        return
    layers = Layers.read(raw)
    screen().print(drawn_layers(name, layers))
    line(f"head: {', '.join(layers.head) or 'none that could be replaced'}")
    line(f"{len(layers.blocks)} blocks: {' '.join(layers.blocks)}")


def drawn_layers(name: str, layers: Layers) -> Tree:
    """Every module with its class and its parameters' shapes; blocks are numbered, the head is marked."""
    root = Tree(Text(f"{name}: {layers.n_parameters:,} parameters"))
    numbers = {path: number for number, path in enumerate(layers.blocks, start=1)}
    drawn = {"": root}
    for module in layers.modules:
        if module.path:
            parent = drawn[module.path.rpartition(".")[0]]
            drawn[module.path] = parent.add(_label(module, numbers, layers.head))
    return root


def _label(module: Module, numbers: Mapping[str, int], head: Collection[str]) -> Text:
    label = Text.assemble((module.path.rpartition(".")[2], "bold"), f" {module.class_name}")
    for tensor in module.parameters:
        label.append(f" {tensor.name}{list(tensor.shape)}", style="dim")
    if module.path in numbers:
        label.append(f"  block {numbers[module.path]}", style="cyan")
    if module.path in head:
        label.append("  @head", style="green")
    return label
