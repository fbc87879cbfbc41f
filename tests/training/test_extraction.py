"""Activations of named modules: whose they are, where they lie, the same whoever computes them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from extractor_runs import RESNET, Extracted, extract_here, extractor_spec
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from trainer_runs import new_spec, start_ranks

from shared.domain.events import StopRequest, TrainerSpec
from shared.domain.extraction import RUN_SPEC
from shared.domain.job import StopReason
from worker.training.generators import seed_generators
from worker.training.images import decode, resized
from worker.training.models import build

MODULES = ["conv1", "bn1", "layer1", "layer4.1.conv2", "avgpool", "fc"]


@pytest.fixture(scope="module")
def resnet(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Extracted:
    """One rank, batches of 8."""
    spec = extractor_spec(digits, MODULES, network=RESNET, size=(32, 32))
    return extract_here(spec, tmp_path_factory.mktemp("one"))


def _inputs(folder: Path, names: list[str], size: tuple[int, int]) -> Tensor:
    pixels = torch.stack([resized(decode((folder / name).read_bytes()), *size) for name in names])
    return torch.addcmul(torch.full((1, 3, 1, 1), -2.0), pixels.float(), torch.full((1, 3, 1, 1), 4 / 255))


def test_each_row_is_what_the_network_itself_gives_for_the_sample_that_it_names(
    resnet: Extracted, digits: Path
) -> None:
    seed_generators(7)
    network = build("resnet18", "torchvision", 10, "fc", (32, 32)).eval()
    samples = resnet.samples

    assert len(samples) == 100
    assert [sample["sample_index"] for sample in samples] == list(range(100))
    assert all(sample["sample"].startswith(f"{sample['label']}/") for sample in samples)
    with torch.no_grad():
        first = _inputs(digits, [sample["sample"] for sample in samples[16:24]], (32, 32))
        conv1 = network.conv1(first)
        bn1 = network.bn1(conv1)
        # The ReLU behind it works in place: what is saved is what bn1 itself gave.
        assert bn1.min() < 0
        layer1 = network.layer1(network.maxpool(bn1.relu()))
        logits = network(first)
    for module, expected in (("conv1", conv1), ("bn1", bn1), ("layer1", layer1), ("fc", logits)):
        assert torch.equal(resnet.rows(module)[16:24], expected), module
    assert resnet.rows("avgpool").shape == (100, 512, 1, 1)


def test_the_index_says_where_everything_is(resnet: Extracted) -> None:
    index, answer = resnet.index, resnet.answer

    assert resnet.outcome.outcome == "succeeded"
    assert list(index.modules) == MODULES
    assert index.modules["layer1"].shape == [64, 8, 8]
    assert sum(shard.n_samples for shard in index.shards) == index.n_samples == 100
    for shard in index.shards:
        content = resnet.files[shard.file]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard.bytes, shard.sha256)
    for place, sample in enumerate(resnet.samples):
        shard = next(s for s in index.shards if s.file == sample["shard"])
        assert shard.first_sample_index + sample["row"] == place
    listed = {file.name for file in answer.activations.files}
    assert listed == {f"activations/{name}" for name in resnet.files}
    assert answer.activations.n_bytes == sum(map(len, resnet.files.values()))
    assert answer.network_proof.before == answer.network_proof.after == index.network_sha256
    assert answer.network_proof.n_buffers == 60
    assert answer.weights_sha256 is None
    lines = resnet.of_type("extraction")
    assert lines[-1].n_done == lines[-1].n_samples == 100
    assert [line.file for line in resnet.of_type("shard")] == [f"activations/{s.file}" for s in index.shards]


@pytest.mark.slow
def test_two_ranks_write_the_same_files_bit_for_bit(resnet: Extracted, digits: Path, tmp_path: Path) -> None:
    spec = extractor_spec(digits, MODULES, network=RESNET, size=(32, 32), batch_size=16, world_size=2)
    started = start_ranks(spec, tmp_path / "two")
    output, _ = started.communicate(timeout=120)

    assert started.returncode == 0, output
    two = Extracted(tmp_path / "two")
    assert two.files.keys() == resnet.files.keys()
    for name, content in two.files.items():
        assert content == resnet.files[name], name
    assert [line.file for line in two.of_type("shard")] == [line.file for line in resnet.of_type("shard")]
    assert two.of_type("extraction")[-1].n_done == 100


@contextmanager
def stopping_at_forward(out: Path, number: int, reason: StopReason) -> Iterator[None]:
    """Writes stop.json while that forward is computed; the first two are the preflight's."""
    forwards = 0

    def count(module: nn.Module, _inputs: Any, _output: Any) -> None:
        nonlocal forwards
        if type(module).__name__ == "CustomNetwork":
            forwards += 1
            if forwards == number + 2:
                aside = out / "stop.aside"
                aside.write_text(StopRequest(reason=reason, grace_s=30).model_dump_json())
                aside.rename(out / "stop.json")

    hook = register_module_forward_hook(count)
    try:
        yield
    finally:
        hook.remove()


def test_a_run_that_was_stopped_leaves_whole_shards_that_the_next_one_does_not_make_again(
    digits: Path, tmp_path: Path
) -> None:
    spec = extractor_spec(digits, ["conv1", "fc"])
    whole = extract_here(spec, tmp_path / "whole")
    (tmp_path / "stopped").mkdir()
    with stopping_at_forward(tmp_path / "stopped", 5, StopReason.DRAIN):
        stopped = extract_here(spec, tmp_path / "stopped")

    assert (stopped.outcome.outcome, stopped.outcome.reason) == ("stopped", StopReason.DRAIN)
    assert not (stopped.out / "result.json").exists()
    made = [line.file for line in stopped.of_type("shard")]
    assert len(made) == 5
    assert set(stopped.files) == {name.rpartition("/")[2] for name in made}

    listed = {file.name: file for file in whole.answer.activations.files}
    again = spec.model_copy(update={"finished": [listed[name] for name in made], "attempt": 2})
    resumed = extract_here(again, tmp_path / "resumed")

    assert not {f"activations/{name}" for name in resumed.files} & set(made)
    assert resumed.index == whole.index
    assert resumed.answer.activations == whole.answer.activations
    assert resumed.of_type("extraction")[0].n_done == 8 * 6
    for name, content in resumed.files.items():
        assert content == whole.files[name]


def test_a_try_that_finds_all_shards_made_only_writes_the_index(digits: Path, tmp_path: Path) -> None:
    spec = extractor_spec(digits, ["fc"])
    whole = extract_here(spec, tmp_path / "whole")
    finished = [file for file in whole.answer.activations.files if "shard" in file.name]

    again = extract_here(spec.model_copy(update={"finished": finished}), tmp_path / "again")

    assert set(again.files) == {"index.json", "samples.jsonl"}
    assert again.index == whole.index


def test_parquet_holds_vectors_with_their_names(digits: Path, tmp_path: Path) -> None:
    plain = extract_here(extractor_spec(digits, ["conv2", "fc"]), tmp_path / "plain")
    wanted = {"output": "parquet", "pool": "mean", "dtype": "float16"}
    ran = extract_here(extractor_spec(digits, ["conv2", "fc"], wanted=wanted), tmp_path / "vectors")

    assert {name.partition("-")[0] for name in ran.files} == {"part", "index.json", "samples.jsonl"}
    table = pq.read_table([ran.out / "activations" / shard.file for shard in ran.index.shards])
    assert table.column_names == ["sample_index", "sample", "label", "conv2", "fc"]
    assert str(table.schema.field("conv2").type).startswith("fixed_size_list<")
    assert table.column("sample").to_pylist() == [sample["sample"] for sample in plain.samples]
    assert table.column("label").to_pylist() == [sample["label"] for sample in plain.samples]
    vectors = np.stack(table.column("conv2").combine_chunks().to_numpy(zero_copy_only=False))
    expected = plain.rows("conv2").mean(dim=(2, 3)).numpy()
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(vectors, expected, rtol=1e-3, atol=1e-4)
    assert ran.index.modules["conv2"].mean_over == [1, 2]


def test_pictures_that_cannot_be_read_keep_their_place_and_have_no_row(digits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(digits, folder)
    (folder / "0" / "0000a.png").write_bytes(b"no picture")

    ran = extract_here(extractor_spec(folder, ["fc"]), tmp_path / "out")

    assert [sample["sample_index"] for sample in ran.samples[:3]] == [0, 2, 3]
    assert ran.index.n_samples == 100
    assert ran.answer.skipped_images == ["0/0000a.png"]


def test_too_much_is_refused_before_anything_is_written(digits: Path, tmp_path: Path) -> None:
    ran = extract_here(extractor_spec(digits, ["conv1"], max_bytes=10_000), tmp_path / "out")

    assert ran.error["code"] == "too_large"
    assert f"{100 * (16 * 12 * 12 * 4 + 8):,} bytes" in ran.error["message"]
    assert "10,000" in ran.error["message"]
    assert not (ran.out / "activations").exists()


def test_a_run_longer_than_it_may_be_fails_with_what_it_had(digits: Path, tmp_path: Path) -> None:
    ran = extract_here(extractor_spec(digits, ["fc"], max_duration_s=0.001), tmp_path / "out")

    assert ran.error["code"] == "time_limit"
    assert "0 of 100 samples" in ran.error["message"]


class _Moving(nn.Module):
    """Counts its calls in a buffer, even in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(images.mean(dim=(2, 3)))


def test_a_network_that_changes_itself_while_it_is_only_run_fails(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.training.extraction.build_base", lambda *_: _Moving())
    ran = extract_here(extractor_spec(digits, ["fc"]), tmp_path / "out")

    assert ran.error["code"] == "network_moved"
    assert "calls" in ran.error["message"]
    assert not (ran.out / "outcome.json").exists()


def test_an_old_spec_that_names_no_kind_is_one_of_training(digits: Path) -> None:
    training = new_spec("custom_network", digits)
    old = training.model_dump(mode="json", exclude={"kind"})
    assert isinstance(RUN_SPEC.validate_python(old), TrainerSpec)
    extracting = extractor_spec(digits, ["fc"])
    assert RUN_SPEC.validate_json(extracting.model_dump_json()) == extracting
