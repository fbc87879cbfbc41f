"""Any number of labels a picture: the loss, and figures that are exact over ranks."""

from __future__ import annotations

import csv
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scans import CLASSES
from sklearn.metrics import average_precision_score, f1_score
from torch.nn.functional import binary_cross_entropy_with_logits
from trainer_runs import MakeSpec, RunHere

from shared.domain.events import TrainerSpec
from thaw.torch import Labels, load_model, predict
from worker.training.tasks.multilabel import Multilabel

QUICK: dict[str, Any] = {"n_epochs": 2, "batch_size": 32, "learning_rate": 0.003, "optimizer": "adamw"}


@pytest.fixture
def make_pairs_spec(make_spec: MakeSpec, task_data: Path) -> MakeSpec:
    def make(**changes: Any) -> TrainerSpec:
        pairs = {"path": str(task_data / "pairs"), "format": "labelled_images"}
        return make_spec(
            "nested_network",
            **{
                "task": "multilabel",
                "train": pairs,
                "freeze": ["decoder"],
                "hyperparameters": QUICK,
                **changes,
            },
        )

    return make


def truth(folder: Path) -> dict[str, set[str]]:
    with (folder / "labels.csv").open() as file:
        return {row["file"]: set(filter(None, row["labels"].split(";"))) for row in csv.DictReader(file)}


def test_two_ranks_train_and_their_figures_are_those_of_the_saved_model(
    make_pairs_spec: MakeSpec, run_ranks: RunHere, task_data: Path
) -> None:
    held_out = task_data / "more-pairs"
    expected = truth(held_out)
    source = {"path": str(held_out), "format": "labelled_images"}

    ran = run_ranks(
        make_pairs_spec(world_size=2, validation=source, hyperparameters={**QUICK, "keep": "last"})
    )

    assert ran.exit_code == 0, ran.output
    result = ran.result
    assert result.frozen_proof.unchanged
    assert result.frozen_proof.n_parameters == 4
    assert result.evaluation is not None
    assert result.evaluation.n_samples == len(expected) == 299, "which two ranks cannot share out evenly"
    answers = predict(load_model(ran.out), [held_out / name for name in expected])
    assert all(isinstance(answer, Labels) for answer in answers)
    scores = np.array([[answer.probabilities[name] for name in CLASSES] for answer in answers])
    has = np.array([[name in labels for name in CLASSES] for labels in expected.values()])
    said = scores >= 0.5
    figures = result.evaluation.metrics
    assert figures["mean_average_precision"] == pytest.approx(average_precision_score(has, scores), abs=1e-3)
    assert figures["f1_macro"] == pytest.approx(
        f1_score(has, said, average="macro", zero_division=0), abs=1e-3
    )
    assert figures["f1_micro"] == pytest.approx(f1_score(has, said, average="micro"), abs=1e-3)
    assert figures["exact_match"] == pytest.approx((said == has).all(axis=1).mean(), abs=0.005)
    assert result.evaluation.accuracy is None
    validation = ran.of_type("validation")[-1]
    assert (validation.main_metric, validation.accuracy) == ("mean_average_precision", None)
    assert ran.of_type("train")[-1].main_metric == "exact_match"
    assert [
        labels for answer, labels in zip(answers, said, strict=True) if len(answer.labels) != labels.sum()
    ] == []


def test_lists_of_labels_in_parquet_train(
    make_pairs_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    def png(shade: int) -> bytes:
        packed = BytesIO()
        Image.new("L", (16, 8), shade).save(packed, "PNG")
        return packed.getvalue()

    labels = [[CLASSES[i % 8], CLASSES[(i + 1) % 8]] if i % 9 else [] for i in range(60)]
    pq.write_table(
        pa.table({"image": [png(4 * i) for i in range(60)], "labels": labels}), tmp_path / "d.parquet"
    )
    source = {
        "path": str(tmp_path / "d.parquet"),
        "format": "parquet",
        "image_column": "image",
        "label_column": "labels",
    }

    ran = run_here(make_pairs_spec(train=source, validation_fraction=0.2))

    assert (ran.result.n_train_samples, ran.result.n_validation_samples) == (48, 12)
    assert ran.note("class_without_samples").data["classes"] == ["8", "9"]
    assert ran.result.evaluation is not None
    assert ran.result.evaluation.per_class_f1 is not None
    assert ran.result.evaluation.per_class_f1["9"] is None


def test_scores_that_are_equal_count_in_any_order() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-2, 3, (50, 4), generator=generator).float()
    has = torch.randint(0, 2, (50, 4), generator=generator)
    has[:, 3] = 0
    counts = Multilabel(list("abcd"), 0.0).new_counts()
    for part in (slice(0, 20), slice(20, 50)):
        counts.add(scores[part], has[part].float())

    found = counts.evaluation()

    known = average_precision_score(has[:, :3].numpy(), scores[:, :3].numpy(), average=None)
    assert found.per_class_average_precision is not None
    assert list(found.per_class_average_precision.values()) == [*map(pytest.approx, known), None]
    assert found.metrics["mean_average_precision"] == pytest.approx(known.mean())
    assert found.loss == pytest.approx(binary_cross_entropy_with_logits(scores, has.float()).item())


def test_label_smoothing_draws_yes_and_no_towards_one_half() -> None:
    scores, has = torch.tensor([[3.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    smooth = torch.tensor([[0.9, 0.1]])

    loss = Multilabel(["a", "b"], 0.2).loss(scores, has)

    assert torch.allclose(loss, binary_cross_entropy_with_logits(scores, smooth))


def test_pictures_without_any_label_are_refused(
    make_pairs_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for number in range(40):
        Image.new("L", (16, 8)).save(data / f"{number}.png")
    (data / "labels.csv").write_text("file,labels\n" + "".join(f"{n}.png,\n" for n in range(40)))

    ran = run_here(make_pairs_spec(train={"path": str(data), "format": "labelled_images"}))

    assert ran.error["code"] == "bad_data"
    assert "no training picture has a label" in ran.error["message"]
