"""Base and trainable.safetensors make the job's model.safetensors again: the same file, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn
from trainer_runs import MakeSpec, Ran, RunHere

from thaw.errors import UsageError
from thaw.packing import file_sha256
from thaw.rebuilding import rebuild
from worker.training.delta import take, unmoved, with_metadata
from worker.training.models import build, load_weights
from worker.training.torchvision_compat import import_torchvision

JOB = {"kind": "job", "job_id": "ftjob-base"}
FILE = {"kind": "file", "file_id": "file-base"}
PUBLISHED = {
    "kind": "published",
    "name": "ResNet18_Weights.IMAGENET1K_V1",
    "url": "https://download.pytorch.org/models/resnet18-f37072fd.pth",
    "file_name": "resnet18-f37072fd.pth",
    "sha256": "f37072fd",
}


def base_of(model: nn.Module, path: Path, source: Mapping[str, Any]) -> dict[str, Any]:
    """The model's state as the file that a job begins from."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    kind = "torch" if path.suffix == ".pth" else "safetensors"
    return {"path": str(path), "format": kind, "sha256": file_sha256(path), "source": dict(source)}


def card(ran: Ran) -> dict[str, Any]:
    return json.loads((ran.out / "model.json").read_text())


def added(ran: Ran) -> set[str]:
    return set(load_file(ran.out / "trainable.safetensors"))


def comes_out_the_same(ran: Ran, base: Path | None, tmp_path: Path) -> bool:
    """Whether the rebuilt file has the bytes of the one that the job wrote."""
    rebuilt = rebuild(ran.out, base, tmp_path / "rebuilt" / "again.safetensors")
    return rebuilt.read_bytes() == (ran.out / "model.safetensors").read_bytes()


@pytest.fixture
def resnet() -> nn.Module:
    """A base whose BatchNorm has statistics of its own."""
    torch.manual_seed(3)
    model = build("resnet18", "torchvision", 10)
    with torch.no_grad():
        model(torch.rand(8, 3, 32, 32))
    return model


@pytest.mark.parametrize(
    ("name", "source"), [("b.safetensors", JOB), ("b.safetensors", FILE), ("b.pth", PUBLISHED)]
)
def test_a_frozen_backbone_comes_from_the_base_and_the_new_head_from_the_delta(
    make_spec: MakeSpec,
    run_here: RunHere,
    resnet: nn.Module,
    tmp_path: Path,
    name: str,
    source: Mapping[str, Any],
) -> None:
    weights = base_of(resnet, tmp_path / name, source)
    spec = make_spec("resnet18", freeze="backbone", base_classes=10, replace_head=True, weights=weights)

    ran = run_here(spec)

    assert added(ran) == {"fc.weight", "fc.bias"}
    assert comes_out_the_same(ran, tmp_path / name, tmp_path)
    told = card(ran)
    assert told["base"]["weights"] == dict(source)
    assert told["base"]["sha256"] == weights["sha256"]
    assert (told["base"]["n_tensors"], told["trainable"]["n_tensors"]) == (120, 2)
    # The part that result.json proves unmoved is the very part that the base gives.
    assert told["base"]["state_sha256"] == ran.result.frozen_proof.after
    with safe_open(ran.out / "trainable.safetensors", "pt") as alone:
        assert alone.metadata()["base_sha256"] == weights["sha256"]
        assert alone.metadata()["format"] == "pt"


def test_a_head_that_is_kept_and_frozen_parts_that_keep_counting(
    make_spec: MakeSpec, run_here: RunHere, resnet: nn.Module, tmp_path: Path
) -> None:
    """What moves by request is in the delta, though its parameters are frozen."""
    freeze = {"rules": [{"freeze": "**"}, {"train": "layer4"}], "batch_norm": "train"}
    weights = base_of(resnet, tmp_path / "base.safetensors", JOB)

    ran = run_here(make_spec("resnet18", freeze=freeze, base_classes=10, weights=weights))

    assert "bn1.running_mean" in added(ran)
    assert "bn1.num_batches_tracked" in added(ran)
    assert "bn1.weight" not in added(ran)
    assert "fc.weight" not in added(ran)
    assert comes_out_the_same(ran, tmp_path / "base.safetensors", tmp_path)


def test_what_any_phase_of_a_schedule_trains_is_in_the_delta(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    thawed = {"rules": [{"freeze": "**"}, {"train": ["conv2", "@head"]}]}
    weights = base_of(build("custom_network", "registered"), tmp_path / "base.safetensors", FILE)

    ran = run_here(
        make_spec(
            freeze="backbone",
            later={1: thawed, 2: "backbone"},
            weights=weights,
            hyperparameters={"n_epochs": 3},
        )
    )

    assert added(ran) == {"conv2.weight", "conv2.bias", "fc.weight", "fc.bias"}
    assert comes_out_the_same(ran, tmp_path / "base.safetensors", tmp_path)


def test_where_all_was_trained_the_delta_is_the_model_and_takes_no_base(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    weights = base_of(build("custom_network", "registered"), tmp_path / "base.safetensors", FILE)

    ran = run_here(make_spec(weights=weights))

    assert card(ran)["base"]["n_tensors"] == 0
    assert comes_out_the_same(ran, None, tmp_path)
    with pytest.raises(UsageError, match="all of its model was trained; leave"):
        rebuild(ran.out, tmp_path / "base.safetensors", tmp_path / "again")


@pytest.mark.parametrize(("model", "seed"), [("custom_network", 11), ("resnet18", 7)])
def test_a_random_frozen_part_comes_from_the_seed(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path, model: str, seed: int
) -> None:
    ran = run_here(make_spec(model, freeze="backbone", seed=seed))

    assert added(ran) == {"fc.weight", "fc.bias"}
    told = card(ran)["base"]
    assert (told["weights"], told["seed"], told["sha256"]) == ({"kind": "none"}, seed, None)
    state = torch.get_rng_state()
    assert comes_out_the_same(ran, None, tmp_path)
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are not touched"
    with pytest.raises(UsageError, match=f"the random weights of seed {seed}; leave"):
        rebuild(ran.out, ran.out / "model.safetensors", tmp_path / "again")


def test_a_random_part_that_comes_out_otherwise_is_refused_with_the_versions_that_made_it(
    make_spec: MakeSpec, run_here: RunHere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run_here(make_spec(freeze="backbone"))
    monkeypatch.setattr(nn.Conv2d, "reset_parameters", lambda self: nn.init.zeros_(self.weight))

    with pytest.raises(UsageError, match=r"torch 2\.\S+, torchvision .*thaw download ftjob-test"):
        rebuild(ran.out, None, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_another_base_is_refused_by_its_hash_and_a_damaged_or_foreign_delta_by_its_own(
    make_spec: MakeSpec, run_here: RunHere, resnet: nn.Module, tmp_path: Path
) -> None:
    base = tmp_path / "base.safetensors"
    weights = base_of(resnet, base, JOB)
    asked = {"freeze": "backbone", "base_classes": 10, "replace_head": True, "weights": weights}
    ran = run_here(make_spec("resnet18", **asked))
    other_job = run_here(make_spec("resnet18", **asked, seed=8), "other")
    out = tmp_path / "again"

    for offset in (-1, 5000):  # in a tensor, and in the header
        content = bytearray(base.read_bytes())
        content[offset] ^= 1
        (tmp_path / "wrong").write_bytes(content)
        with pytest.raises(
            UsageError, match="is not what ftjob-test began from, the model of ftjob-base"
        ) as no:
            rebuild(ran.out, tmp_path / "wrong", out)
        assert file_sha256(tmp_path / "wrong") in str(no.value)
        assert weights["sha256"] in str(no.value)
    with pytest.raises(UsageError, match=f"name that file, SHA-256 {weights['sha256']}"):
        rebuild(ran.out, None, out)

    delta = ran.out / "trainable.safetensors"
    whole = delta.read_bytes()
    for content in (whole[:-1], (other_job.out / "trainable.safetensors").read_bytes()):
        delta.write_bytes(content)
        with pytest.raises(UsageError, match="damaged, or of another job"):
            rebuild(ran.out, base, out)
    assert not out.exists()
    delta.write_bytes(whole)
    assert comes_out_the_same(ran, base, tmp_path)


# -- what a file holds otherwise than the model


class Kept(nn.Module):
    """A shared weight, and a submodule with buffers that is registered twice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.again = self.norm
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def taken_from(path: Path, model: nn.Module) -> Mapping[str, str]:
    """What a frozen `model` takes from the file that it was loaded from."""
    load_weights(model, path)
    return take(state_of(model), frozenset(model.state_dict()), path).names


def test_names_that_torchvision_changed_lead_to_those_in_the_published_file(tmp_path: Path) -> None:
    model = build("densenet121", "torchvision", 3)
    old = {
        name.replace(".norm1.", ".norm.1."): tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(old, tmp_path / "base.pth")
    taken = taken_from(tmp_path / "base.pth", build("densenet121", "torchvision", 3))
    layer = "features.denseblock1.denselayer1"
    assert taken[f"{layer}.norm1.weight"] == f"{layer}.norm.1.weight"
    assert taken[f"{layer}.conv1.weight"] == f"{layer}.conv1.weight"
    assert taken.keys() >= {name for name, _ in model.named_parameters()}


def test_what_is_fitted_or_converted_or_made_up_on_loading_is_not_taken(tmp_path: Path) -> None:
    transformer = import_torchvision().models.VisionTransformer
    sizes = {
        "patch_size": 8,
        "num_layers": 1,
        "num_heads": 1,
        "hidden_dim": 8,
        "mlp_dim": 8,
        "num_classes": 2,
    }
    torch.save(transformer(image_size=16, **sizes).state_dict(), tmp_path / "vit.pth")
    model = transformer(image_size=32, **sizes)
    taken = taken_from(tmp_path / "vit.pth", model)
    assert set(model.state_dict()) - set(taken) == {"encoder.pos_embedding"}

    norm = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    stored = {name: tensor for name, tensor in norm.state_dict().items() if "tracked" not in name}
    stored["0.weight"] = stored["0.weight"].half()
    torch.save(stored, tmp_path / "norm.pth")
    assert set(norm.state_dict()) - set(taken_from(tmp_path / "norm.pth", norm)) == {
        "0.weight",
        "1.num_batches_tracked",
    }


def test_a_tensor_with_several_names_is_taken_by_each() -> None:
    frozen = frozenset({"norm.weight", "norm.running_mean", "first.weight"})
    names = unmoved(Kept(), frozen)
    assert names == {
        *("norm.weight", "again.weight", "norm.running_mean", "again.running_mean"),
        *("first.weight", "second.weight"),
    }


def test_a_file_with_metadata_is_the_same_each_time_and_the_library_reads_it(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.tensor([1], dtype=torch.int64)}
    told = {f"key{number}": "\N{SNOWMAN}" * number for number in range(20)}
    content = with_metadata(save(tensors), told)
    (tmp_path / "file").write_bytes(content)
    assert content == with_metadata(save(tensors), told)
    with safe_open(tmp_path / "file", "pt") as file:
        assert file.metadata() == told
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
