"""Activations read on the machine of whoever uses them, with numpy alone, and what a result may list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from shared.domain.activations import ModuleActivations, SavedActivations, StoredFile
from thaw.activations import read_activations
from thaw.errors import UsageError
from worker.result_files import check_as_listed, listed_activations
from worker.run_files import NotAPlainFile

ROWS = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four samples in two shards, one of which is named as Parquet and multilabel data are."""
    below = tmp_path / "activations"
    below.mkdir()
    shards = []
    for number, (start, stop) in enumerate([(0, 3), (3, 4)]):
        name = f"shard-{number:05d}.safetensors"
        index = np.array([0, 2, 3, 7][start:stop])
        save_file({"a.b": ROWS[start:stop], "sample_index": index}, below / name)
        shards.append({"file": name, "bytes": (below / name).stat().st_size})
    lines = [
        {"sample_index": index, "sample": f"{index}.png", "label": label, "shard": "", "row": 0}
        for index, label in zip([0, 2, 3, 7], ["cat", ["cat", "dog"], None, "dog"], strict=True)
    ]
    (below / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    index_file = {
        "output": "safetensors",
        "modules": {"a.b": {}},
        "shards": shards,
        "samples": {"name": "samples.jsonl"},
    }
    (below / "index.json").write_text(json.dumps(index_file))
    return tmp_path


def test_rows_come_in_the_order_of_the_samples_from_the_folder_or_the_one_below(folder: Path) -> None:
    for place in (folder, folder / "activations"):
        found = read_activations(place)
        assert found.modules == ["a.b"]
        assert np.array_equal(found["a.b"], ROWS)
        assert [(sample.index, sample.label) for sample in found.samples] == [
            (0, "cat"),
            (2, ("cat", "dog")),
            (3, None),
            (7, "dog"),
        ]


def test_shards_are_read_from_the_disk_only_where_they_are_looked_at(folder: Path) -> None:
    shards = list(read_activations(folder).shards())

    assert [shard.sample_index.tolist() for shard in shards] == [[0, 2, 3], [7]]
    assert all(isinstance(shard["a.b"], np.memmap) for shard in shards)
    assert np.array_equal(shards[1]["a.b"], ROWS[3:])


def test_what_is_not_whole_or_not_there_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match=r"saved are a\.b"):
        read_activations(folder)["fc"]
    shard = folder / "activations" / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UsageError, match="download it again"):
        read_activations(folder)["a.b"]
    with pytest.raises(UsageError, match="no whole activations"):
        read_activations(tmp_path / "nowhere")
    index = folder / "activations" / "index.json"
    index.write_text(json.dumps({"output": "parquet"}))
    with pytest.raises(UsageError, match="Parquet"):
        read_activations(folder)


def result(*names: str, n_bytes: int = 10) -> dict[str, Any]:
    module = ModuleActivations(
        class_name="Linear", output_shape=[2], shape=[2], dtype="float32", mean_over=[]
    )
    files = [StoredFile(name=name, bytes=n_bytes, sha256="ab") for name in names]
    saved = SavedActivations(modules={"fc": module}, n_samples=1, n_bytes=1, files=files)
    return {"activations": saved.model_dump()}


def test_a_result_lists_files_of_activations_and_no_others() -> None:
    names = ["activations/shard-00000.safetensors", "activations/index.json"]
    assert [file.name for file in listed_activations(result(*names), 100)] == names
    assert listed_activations({}, 100) == []
    assert listed_activations({"activations": None}, 100) == []


@pytest.mark.parametrize(
    "name",
    [
        "result.json",
        "activations/../result.json",
        "activations/shard-1.safetensors",
        "/etc/passwd",
        "activations/shard-00000.safetensors\n",
        "activations/part-00000.pickle",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(NotAPlainFile, match="no file of activations"):
        listed_activations(result(name), 100)


def test_a_list_that_is_no_list_too_long_or_not_what_was_stored_is_refused() -> None:
    shard = "activations/shard-00000.safetensors"
    with pytest.raises(NotAPlainFile, match="twice"):
        listed_activations(result(shard, shard), 100)
    with pytest.raises(NotAPlainFile, match="may be"):
        listed_activations(result(shard, n_bytes=10**9), 100)
    with pytest.raises(NotAPlainFile, match="cannot be read"):
        listed_activations({"activations": {"files": [{}]}}, 100)
    with pytest.raises(NotAPlainFile, match="is not the file"):
        check_as_listed(listed_activations(result(shard), 100), [])
