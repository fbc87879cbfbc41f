"""`thaw.torch`: a job's folder of artifacts, loaded and used on a person's machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from thaw.packing import file_sha256
from thaw.torch import build as thaw_build
from thaw.torch import load_model
from worker.training.models import build


def a_result(folder: Path, model: nn.Module, architecture: dict[str, Any]) -> Path:
    """The part of a job's folder that using its model needs."""
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "m")
    card = {
        "architecture": {"source": "torchvision", "version": None, **architecture},
        "class_names": [str(number) for number in range(architecture["num_classes"])],
        "preprocessing": {"height": 32, "width": 32, "mean": [0.0] * 3, "std": [1.0] * 3},
        "weights_file": "m",
        "weights_sha256": file_sha256(folder / "m"),
    }
    (folder / "model.json").write_text(json.dumps(card))
    return folder


def test_a_network_that_asks_for_its_version_is_loaded(tmp_path: Path) -> None:
    model = build("mnasnet0_5", "torchvision", 3).eval()
    architecture = {"name": "mnasnet0_5", "num_classes": 3, "head": ["classifier.1"]}
    loaded = load_model(a_result(tmp_path / "job", model, architecture)).network
    pictures = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(pictures), model(pictures))


def test_a_segmentation_network_is_loaded_with_its_auxiliary_classifier(tmp_path: Path) -> None:
    model = build("deeplabv3_mobilenet_v3_large", "torchvision", 3).eval()
    head = ["classifier.4", "aux_classifier.4"]
    architecture = {"name": "deeplabv3_mobilenet_v3_large", "num_classes": 3, "head": head}
    loaded = load_model(a_result(tmp_path / "job", model, architecture)).network
    pictures = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(loaded(pictures)["out"], model(pictures)["out"])
    assert type(build("lraspp_mobilenet_v3_large", "torchvision", 3)) is type(
        thaw_build({"source": "torchvision", "name": "lraspp_mobilenet_v3_large", "head": []}, {})
    )
