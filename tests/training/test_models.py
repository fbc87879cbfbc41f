"""Building networks, giving them new heads, and loading weights into them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from shared import catalog
from shared.domain.errors import Invalid
from shared.domain.flow import Flow
from shared.domain.module_tree import ModuleTree
from worker.registered import registered_models, source_hash
from worker.training import models
from worker.training.describe import describe_registered
from worker.training.torchvision_compat import import_torchvision

ROOT = Path(__file__).resolve().parents[2]


class Tied(nn.Module):
    """A shared weight, a buffer, and a submodule that is registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.again = self.norm
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.second(self.first(self.again(x))))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_32"])
def test_a_network_with_its_own_number_of_classes(name: str) -> None:
    model = models.build(name, "torchvision", num_classes=5)
    height, width = catalog.get(name).image_size
    with torch.no_grad():
        assert model.eval()(torch.zeros(2, 3, height, width)).shape == (2, 5)
    expected = catalog.get(name).tree.with_num_classes(5).shapes
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == dict(expected)


@pytest.mark.parametrize(
    ("name", "answers"),
    [("deeplabv3_mobilenet_v3_large", {"out", "aux"}), ("lraspp_mobilenet_v3_large", {"out"})],
)
def test_a_segmentation_network_answers_with_a_dict_of_pixel_scores(name: str, answers: set[str]) -> None:
    model = models.build(name, "torchvision", num_classes=5)
    with torch.no_grad():
        output = model.eval()(torch.zeros(2, 3, 40, 64))
    assert {name: tuple(scores.shape) for name, scores in output.items()} == dict.fromkeys(
        answers, (2, 5, 40, 64)
    )
    expected = catalog.get(name).tree.with_num_classes(5).shapes
    assert {n: tuple(p.shape) for n, p in model.named_parameters()} == dict(expected)


def test_a_vision_transformer_is_built_for_the_size_asked_for() -> None:
    model = models.build("vit_b_32", "torchvision", num_classes=2, image_size=(64, 64))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 2)
    tree = catalog.get("vit_b_32").tree_at((64, 64)).with_num_classes(2)
    assert dict(tree.shapes) == {n: tuple(p.shape) for n, p in model.named_parameters()}
    for size, words in [((64, 96), "square"), ((60, 60), "multiple of 32")]:
        with pytest.raises(Invalid, match=words):
            models.build("vit_b_32", "torchvision", image_size=size)


@pytest.mark.slow
def test_maxvit_takes_multiples_of_its_size() -> None:
    with torch.no_grad():
        model = models.build("maxvit_t", "torchvision", num_classes=2, image_size=(448, 448)).eval()
        assert model(torch.zeros(1, 3, 448, 448)).shape == (1, 2)
    for size in [(256, 256), (224, 448)]:
        with pytest.raises(Invalid, match="square, with a side that is a multiple of 224"):
            models.build("maxvit_t", "torchvision", image_size=size)


def test_a_head_that_is_named() -> None:
    model = models.build("custom_network", "registered", num_classes=6, head_module="fc")
    assert model.get_submodule("fc").out_features == 6
    with pytest.raises(Invalid, match="is a Sequential"):
        models.build("nested_network", "registered", num_classes=6, head_module="encoder")


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 3, bias=False, dtype=torch.float64),
        nn.Conv2d(6, 3, (1, 2), stride=2, padding=(0, 1), padding_mode="reflect", bias=False),
        nn.Conv2d(6, 3, 1, device="meta"),
    ],
)
def test_a_new_head_is_like_the_old_one(layer: nn.Module) -> None:
    model = nn.Sequential(OrderedDict(head=layer))
    models.replace_head(model, ["head"], 9)
    new = model.get_submodule("head")
    assert new is not layer
    assert type(new) is type(layer)
    assert new.weight.shape == (9, *layer.weight.shape[1:])
    assert (new.weight.device, new.weight.dtype) == (layer.weight.device, layer.weight.dtype)
    assert (new.bias is None) == (layer.bias is None)
    if isinstance(layer, nn.Conv2d):
        assert (new.stride, new.padding, new.padding_mode) == (
            layer.stride,
            layer.padding,
            layer.padding_mode,
        )


def test_a_head_that_cannot_be_replaced_leaves_the_model_alone() -> None:
    model = Tied()
    before = {name: id(p) for name, p in model.named_parameters()}
    for path, words in [("norm", "BatchNorm1d"), ("first", "shares"), ("nothing", "no module")]:
        with pytest.raises(Invalid, match=words):
            models.replace_head(model, ["fc", path], 2)
    assert {name: id(p) for name, p in model.named_parameters()} == before


class TestDescribing:
    def test_shared_parts_are_listed_once_with_their_aliases(self) -> None:
        tree = models.describe_module(Tied())
        assert [m.path for m in tree.modules] == ["", "norm", "first", "second", "fc"]
        assert list(tree.shapes) == [name for name, _ in Tied().named_parameters()]
        assert tree.aliases == {
            "second.weight": "first.weight",
            "again.weight": "norm.weight",
            "again.bias": "norm.bias",
        }
        assert [(b.name, b.dtype) for b in tree.by_path["norm"].buffers][-1] == (
            "num_batches_tracked",
            "int64",
        )
        assert tree.head == ("fc",)
        assert tree.num_classes == 3

    def test_blocks_stand_in_the_order_of_their_first_call(self) -> None:
        class Backwards(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(4, 2)
                self.late = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
                self.early = nn.Linear(4, 4)
                self.never = nn.Linear(4, 4)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(self.late(self.early(x)))

        model = Backwards()
        model.late.eval()
        tree = models.describe_module(model, head="fc", example=torch.zeros(2, 4))
        assert tree.blocks == ("early", "late.0", "late.2")
        assert model.training
        assert not model.late.training
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert models.describe_module(model, head="fc").blocks == ("late.0", "late.2", "early", "never")

    def test_a_lazy_module_is_refused(self) -> None:
        with pytest.raises(Invalid, match="lazy"):
            models.describe_module(nn.Sequential(nn.LazyLinear(3)))


class TestWeights:
    def test_safetensors_are_loaded_strictly(self, tmp_path: Path) -> None:
        source, target = (models.build("custom_network", "registered") for _ in range(2))
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        models.load_weights(target, tmp_path / "model.safetensors")
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
        with pytest.raises(Invalid, match=r"model\.safetensors do not fit") as refused:
            models.load_weights(models.build("nested_network", "registered"), tmp_path / "model.safetensors")
        assert refused.value.param == "weights"

    def test_a_broken_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 100)
        with pytest.raises(Invalid, match=r"broken\.safetensors"):
            models.load_weights(models.build("custom_network", "registered"), tmp_path / "broken.safetensors")

    def test_a_pickle_that_would_run_code_is_refused(self, tmp_path: Path) -> None:
        torch.save(subprocess.Popen, tmp_path / "evil.pth")
        with pytest.raises(Invalid, match=r"evil\.pth"):
            models.load_weights(models.build("custom_network", "registered"), tmp_path / "evil.pth")

    def test_published_densenet_files_have_old_names(self, tmp_path: Path) -> None:
        source, target = (models.build("densenet121", "torchvision") for _ in range(2))
        old = {
            name.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): tensor
            for name, tensor in source.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        assert old.keys() != source.state_dict().keys()
        torch.save(old, tmp_path / "densenet121-a639ec97.pth")
        models.load_weights(target, tmp_path / "densenet121-a639ec97.pth")
        state = target.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in source.state_dict().items())

    def test_a_network_that_asks_for_its_version_takes_a_file_that_tells_none(self, tmp_path: Path) -> None:
        source, target = (models.build("mnasnet0_5", "torchvision", 3) for _ in range(2))
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        models.load_weights(target, tmp_path / "model.safetensors")
        state = target.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in source.state_dict().items())

    def test_published_segmentation_files_hold_the_auxiliary_classifier(self, tmp_path: Path) -> None:
        published = import_torchvision().models.segmentation.deeplabv3_mobilenet_v3_large(
            weights_backbone=None, aux_loss=True
        )
        torch.save(published.state_dict(), tmp_path / "deeplabv3-fc3c493d.pth")
        target = models.build("deeplabv3_mobilenet_v3_large", "torchvision")
        models.load_weights(target, tmp_path / "deeplabv3-fc3c493d.pth")
        state = target.state_dict()
        assert "aux_classifier.4.weight" in state
        assert all(torch.equal(tensor, state[name]) for name, tensor in published.state_dict().items())

    def test_a_position_embedding_is_stretched_to_the_picture_size(self, tmp_path: Path) -> None:
        source = models.build("vit_b_32", "torchvision")
        save_file(source.state_dict(), tmp_path / "vit.safetensors")
        target = models.build("vit_b_32", "torchvision", image_size=(64, 64))
        models.load_weights(target, tmp_path / "vit.safetensors")
        assert target.encoder.pos_embedding.shape == (1, 1 + 2 * 2, 768)
        assert torch.equal(target.encoder.pos_embedding[:, 0], source.encoder.pos_embedding[:, 0])
        assert torch.equal(target.conv_proj.weight, source.conv_proj.weight)


class TestRegisteredModels:
    def test_they_are_listed_without_importing_them_or_torch(self) -> None:
        program = (
            "import json, sys; from dataclasses import asdict;"
            "from worker.registered import registered_models;"
            "found = [asdict(m) for m in registered_models()];"
            "assert not {'torch', 'thaw_example_models'} & set(sys.modules);"
            "print(json.dumps(found))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
        )
        found = {model["name"]: model for model in json.loads(done.stdout)}
        assert {"custom_network", "nested_network"} <= found.keys()
        assert found["custom_network"]["hash"] == source_hash("thaw_example_models")
        assert found["custom_network"]["version"] == "1.0.0"

    def test_the_command_describes_them(self) -> None:
        command = [sys.executable, "-m", "worker.training.describe", "registered", "nested_network"]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        described = json.loads(done.stdout)
        nested = ModuleTree.from_data(described["tree"])
        assert nested.blocks == ("encoder.0", "encoder.3", "decoder.0", "decoder.2")
        assert nested.head == ("classifier",)
        assert (nested.num_classes, described["image_size"]) == (10, [24, 40])
        modules = {step.module for step in Flow.from_data(described["flow"]).steps}
        assert modules == {f"encoder.{n}" for n in range(6)} | {f"decoder.{n}" for n in range(3)} | {
            "classifier"
        }

    @pytest.mark.parametrize(("name", "size"), [("custom_network", (14, 14)), ("nested_network", (24, 40))])
    def test_they_answer_with_ten_classes_at_their_size(self, name: str, size: tuple[int, int]) -> None:
        assert models.build(name, "registered")(torch.zeros(2, 3, *size)).shape == (2, 10)

    def test_nested_network_mistakes_the_batch_at_other_sizes(self) -> None:
        """The two cases that a check of the output's shape is there for."""
        model = models.build("nested_network", "registered")
        assert model(torch.zeros(2, 3, 38, 38)).shape == (4, 10)
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 3, 32, 32))

    def test_an_unknown_one_gets_near_names(self) -> None:
        with pytest.raises(Invalid, match="custom_network"):
            models.build("custom-network", "registered")

    def test_one_that_cannot_be_built_is_told_with_its_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(
            tmp_path,
            monkeypatch,
            name="broken_network",
            body="def build():\n    raise ValueError('no such luck')",
        )
        (broken,) = [model for model in registered_models() if model.name == "broken_network"]
        assert describe_registered(broken.name)["error"] == "ValueError: no such luck"

    def test_one_may_not_take_a_torchvision_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tmp_path, monkeypatch, name="resnet18", body="def build():\n    return None")
        (clash,) = [model for model in registered_models() if model.name == "resnet18"]
        assert "torchvision" in describe_registered(clash.name)["error"]

    def test_the_hash_follows_names_and_contents_not_the_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = tmp_path / "one" / "hashed_package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "net.py").write_text("width = 1")
        monkeypatch.syspath_prepend(tmp_path / "one")
        first = source_hash("hashed_package.net")
        (package / "notes.txt").write_text("no source")
        assert source_hash("hashed_package.net") == first
        (package / "net.py").write_text("width = 2")
        assert source_hash("hashed_package.net") != first
        (package / "net.py").rename(package / "web.py")
        assert source_hash("hashed_package.net") != first


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, body: str) -> None:
    """A distribution in `folder` that registers one model, as an installer would leave it."""
    module = f"registers_{name}"
    (folder / f"{module}.py").write_text(body)
    info = folder / f"{module}-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(f"[thaw.models]\n{name} = {module}:build\n")
    monkeypatch.syspath_prepend(folder)
