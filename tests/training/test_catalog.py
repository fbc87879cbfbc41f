"""The catalogue says what torchvision builds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shared import catalog
from shared.catalog.catalog import DATA, read, write
from shared.catalog.flow import FOLDER
from shared.domain.errors import Invalid
from worker.training.catalog_source import read_flow, read_model
from worker.training.torchvision_compat import import_torchvision

HANDFUL = [
    *("resnet18", "mobilenet_v3_small", "vit_b_16", "googlenet", "squeezenet1_1", "swin_t"),
    *("deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"),
]
# The least of each family: the others are the same code, only deeper or wider.
FAMILIES = [
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet"),
    *("inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf"),
    *("regnet_y_400mf", "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_t"),
    *("swin_v2_t", "vgg11", "vgg11_bn", "wide_resnet50_2", "deeplabv3_resnet50", "fcn_resnet50"),
    "lraspp_mobilenet_v3_large",
]
SEGMENTATION = [name for name in catalog.names() if catalog.get(name).task == "segmentation"]


def test_it_holds_every_model_for_classification_and_segmentation_and_no_other() -> None:
    models = import_torchvision().models
    assert sorted(SEGMENTATION) == sorted(models.list_models(module=models.segmentation))
    classifying = sorted(set(catalog.names()) - set(SEGMENTATION))
    assert classifying == sorted(models.list_models(module=models))
    assert (len(classifying), len(SEGMENTATION)) == (80, 6)
    assert {catalog.get(name).task for name in classifying} == {"classification"}


@pytest.mark.parametrize("name", HANDFUL)
def test_an_entry_equals_a_real_network(name: str) -> None:
    """Compared with tensors that torchvision makes, without the code that wrote the catalogue."""
    model = import_torchvision().models.get_model(name, weights=None, **quick(name))
    tree = catalog.get(name).tree
    assert dict(tree.shapes) == {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert [(m.path, m.class_name) for m in tree.modules] == [
        (path, type(m).__name__) for path, m in model.named_modules()
    ]
    assert dict(buffers_of(name)) == {n: (tuple(b.shape), b.dtype) for n, b in model.named_buffers()}


@pytest.mark.parametrize("name", HANDFUL)
def test_blocks_run_in_their_order_and_hold_all_but_the_head(name: str) -> None:
    model = import_torchvision().models.get_model(name, weights=None, **quick(name)).eval()
    known = catalog.get(name)
    seen: list[str] = []
    for path in known.tree.blocks:
        model.get_submodule(path).register_forward_pre_hook(lambda _m, _i, path=path: seen.append(path))
    with torch.no_grad():
        model(torch.zeros(1, 3, *known.image_size))
    assert tuple(seen) == known.tree.blocks
    inside = {id(p) for path in (*known.tree.blocks, *known.tree.head) for p in parameters(model, path)}
    outside = {n for n, p in model.named_parameters() if id(p) not in inside}
    assert all(n.startswith(("aux", "class_token", "encoder.pos_embedding")) for n in outside)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet18", ("fc",)),
        ("googlenet", ("fc", "aux1.fc2", "aux2.fc2")),
        ("inception_v3", ("fc", "AuxLogits.fc")),
        ("squeezenet1_0", ("classifier.1",)),
        ("vit_b_16", ("heads.head",)),
        ("densenet121", ("classifier",)),
        ("maxvit_t", ("classifier.5",)),
        ("fcn_resnet50", ("classifier.4", "aux_classifier.4")),
        ("deeplabv3_resnet101", ("classifier.4", "aux_classifier.4")),
        ("lraspp_mobilenet_v3_large", ("classifier.high_classifier", "classifier.low_classifier")),
    ],
)
def test_heads(name: str, head: tuple[str, ...]) -> None:
    assert catalog.get(name).tree.head == head


def test_weights_are_those_that_torchvision_publishes() -> None:
    enum = import_torchvision().models.ResNet50_Weights
    known = catalog.get("resnet50")
    assert [w.name for w in known.weights] == [entry.name for entry in enum]
    default = known.published("DEFAULT")
    assert default.url == enum.DEFAULT.url
    assert default.sha256_prefix == "11ad3fa6"
    assert (default.num_classes, default.crop_size, default.resize_size) == (1000, 224, 232)
    assert default.mean == (0.485, 0.456, 0.406)
    assert default.std == (0.229, 0.224, 0.225)


def test_weights_for_segmentation_name_their_classes() -> None:
    default = catalog.get("fcn_resnet50").published("DEFAULT")
    assert default.name == "COCO_WITH_VOC_LABELS_V1"
    assert default.sha256_prefix == "1167a1af"
    assert (default.num_classes, len(default.categories)) == (21, 21)
    assert default.categories[:2] == ("__background__", "aeroplane")
    assert (default.resize_size, default.crop_size, default.min_size) == (520, 520, (1, 1))
    assert catalog.get("fcn_resnet50").tree.num_classes == 21


def test_all_weights_name_a_hash_and_every_model_has_one_default() -> None:
    for model in map(catalog.get, catalog.names()):
        assert all(len(weights.sha256_prefix) >= 8 for weights in model.weights)
        assert [weights.is_default for weights in model.weights].count(True) == 1
        assert model.image_size == (model.published("DEFAULT").crop_size,) * 2


def test_an_unknown_name_gets_near_ones() -> None:
    with pytest.raises(Invalid, match="resnet18") as refused:
        catalog.get("resnet-18")
    assert refused.value.param == "model"
    with pytest.raises(Invalid, match="IMAGENET1K_V2"):
        catalog.get("resnet50").published("IMAGENET1K_V3")


def test_writing_gives_the_same_bytes_each_time_and_reads_back(tmp_path: Path) -> None:
    model = catalog.get("resnet18")
    write(model, tmp_path)
    assert read(tmp_path / "resnet18.json.gz") == model
    first = (tmp_path / "resnet18.json.gz").read_bytes()
    write(model, tmp_path)
    assert (tmp_path / "resnet18.json.gz").read_bytes() == first
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 1_500_000


def test_it_is_read_without_torch() -> None:
    program = (
        "import sys; from shared import catalog;"
        "catalog.get('resnet18').tree; sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", catalog.names())
def test_every_entry_is_what_the_generator_writes_now(name: str) -> None:
    fresh, stored = read_model(name), catalog.get(name)
    assert fresh.tree == stored.tree
    assert fresh == stored


def test_every_flow_reads_every_parameter_of_its_network() -> None:
    for name in catalog.names():
        flow, known = catalog.flow_of(name), catalog.get(name)
        assert flow.image_size == known.image_size
        assert {p for step in flow.steps for p in step.parameters} == known.tree.shapes.keys()
        assert {step.module for step in flow.steps} <= known.tree.by_path.keys()
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 500_000


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_a_flow_is_what_is_recorded_now(name: str) -> None:
    assert read_flow(name) == catalog.flow_of(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_flow_of_each_family_is_what_is_recorded_now(name: str) -> None:
    assert read_flow(name) == catalog.flow_of(name)


def quick(name: str) -> dict[str, Any]:
    """Without googlenet's slow initialisation, and as published weights for segmentation need it."""
    if name in SEGMENTATION:
        return {"weights_backbone": None} | ({} if name.startswith("lraspp") else {"aux_loss": True})
    return {"init_weights": False} if name == "googlenet" else {}


def parameters(model: nn.Module, path: str) -> Iterator[nn.Parameter]:
    return model.get_submodule(path).parameters()


def buffers_of(name: str) -> Iterator[tuple[str, tuple[tuple[int, ...], torch.dtype]]]:
    for module in catalog.get(name).tree.modules:
        for buffer in module.buffers:
            yield f"{module.path}.{buffer.name}", (buffer.shape, getattr(torch, buffer.dtype))
