"""Freeze plans against the same question asked of real networks, with torch alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from shared import catalog
from shared.domain.freeze import parse_freeze, resolve
from worker.training import models

NETWORKS = ["resnet18", "mobilenet_v3_small", "vit_b_16", "googlenet"]
HEADS = {
    "resnet18": ["fc"],
    "mobilenet_v3_small": ["classifier.3"],
    "vit_b_16": ["heads.head"],
    "googlenet": ["fc", "aux1.fc2", "aux2.fc2"],
}
PATHS = {
    "resnet18": "layer2.0",
    "mobilenet_v3_small": "features.1",
    "vit_b_16": "encoder.layers.encoder_layer_3",
    "googlenet": "inception3a.branch2",
}
GLOBS = {
    "resnet18": ("layer?.*.bn1", r"layer.\.[^.]*\.bn1\."),
    "mobilenet_v3_small": ("features.**.fc?", r"features\.(.*\.)?fc.\."),
    "vit_b_16": ("**.ln_*.bias", r"(.*\.)?ln_[^.]*\.bias$"),
    "googlenet": ("inception*.branch?.**.bn", r"inception[^.]*\.branch.\.(.*\.)?bn\."),
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param, models.build(request.param, "torchvision", num_classes=5)


def test_backbone(network: tuple[str, nn.Module]) -> None:
    name, model = network
    in_head = {id(p) for path in HEADS[name] for p in model.get_submodule(path).parameters()}
    check(network, "backbone", lambda _name, parameter: id(parameter) not in in_head)


def test_a_part_of_the_name(network: tuple[str, nn.Module]) -> None:
    text = "fc1" if network[0] == "mobilenet_v3_small" else "conv"
    check(network, [f"name:{text}"], lambda name, _parameter: text in name)


def test_a_path(network: tuple[str, nn.Module]) -> None:
    name, model = network
    below = {id(p) for p in model.get_submodule(PATHS[name]).parameters()}
    check(network, [PATHS[name]], lambda _name, parameter: id(parameter) in below)


def test_a_glob(network: tuple[str, nn.Module]) -> None:
    glob, expression = GLOBS[network[0]]
    check(network, [glob], lambda name, _parameter: re.match(expression, name) is not None)


def check(network: tuple[str, nn.Module], freeze: Any, frozen: Callable[[str, nn.Parameter], bool]) -> None:
    """The plan equals what `frozen` says of each parameter, and what torch then says of each module."""
    name, model = network
    tree = catalog.get(name).tree.with_num_classes(5)
    (plan,) = resolve(parse_freeze(freeze), tree, head_replaced=True).phases
    for path, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen(path, parameter))
    assert plan.trainable == tuple(n for n, p in model.named_parameters() if p.requires_grad)
    assert plan.frozen == tuple(n for n, p in model.named_parameters() if not p.requires_grad)
    assert plan.frozen
    assert plan.n_trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert plan.n_frozen == sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert plan.still == tuple(path for path, _ in model.named_modules() if is_still(model, path))


def is_still(model: nn.Module, path: str) -> bool:
    while path and not any(True for _ in model.get_submodule(path).parameters()):
        path = path.rpartition(".")[0]
    return not any(p.requires_grad for p in model.get_submodule(path).parameters())
