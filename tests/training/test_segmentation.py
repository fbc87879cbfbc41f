"""A class for each pixel: masks that stay with their pictures, the loss, figures that add up over ranks."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from trainer_runs import MakeSpec, RunHere

from shared.domain.events import TrainerSpec
from thaw.torch import Mask, load_model, predict
from worker.training.data import Samples
from worker.training.images import Unreadable, resized
from worker.training.labels import NoLabels
from worker.training.masks import Masks, decode_mask
from worker.training.pictures import Pictures
from worker.training.stored import FolderPictures
from worker.training.tasks.segmentation import Segmentation
from worker.training.transforms import Augmentation

CLASSES = ["background", "stroke"]
QUICK: dict[str, Any] = {"n_epochs": 3, "batch_size": 30, "learning_rate": 0.03, "optimizer": "adamw"}


def masked(folder: Path) -> dict[str, str]:
    return {"path": str(folder), "format": "masked_images"}


@pytest.fixture
def make_outline_spec(make_spec: MakeSpec, task_data: Path) -> MakeSpec:
    def make(model: str = "outliner", **changes: Any) -> TrainerSpec:
        told = {
            "task": "segmentation",
            "num_classes": 2,
            "class_names": CLASSES,
            "train": masked(task_data / "outlines"),
            "freeze": ["backbone"],
            "hyperparameters": QUICK,
        }
        return make_spec(model, **{**told, **changes})

    return make


def png(values: Any, mode: str | None = None, **options: Any) -> bytes:
    packed = BytesIO()
    image = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if mode == "P":
        image.putpalette([channel for number in range(256) for channel in (number, 0, 255 - number)])
    elif mode is not None:
        image = image.convert(mode)
    image.save(packed, "PNG", **options)
    return packed.getvalue()


def test_two_ranks_train_the_heads_alone_and_their_figures_are_those_of_the_saved_model(
    make_outline_spec: MakeSpec, run_ranks: RunHere, task_data: Path
) -> None:
    held_out = task_data / "more-outlines"
    spec = make_outline_spec(
        world_size=2, validation=masked(held_out), hyperparameters={**QUICK, "keep": "last"}
    )

    ran = run_ranks(spec)

    assert ran.exit_code == 0, ran.output
    result = ran.result
    trained = {f"{head}.{name}" for head in ("classifier", "aux_classifier") for name in ("weight", "bias")}
    assert set(load_file(ran.out / "trainable.safetensors")) == trained
    assert result.frozen_proof.unchanged
    assert result.frozen_proof.n_buffers == 12
    assert result.evaluation is not None
    assert result.evaluation.n_samples == 101, "which two ranks cannot share out evenly"
    paths = sorted((held_out / "images").iterdir())
    answers = predict(load_model(ran.out), paths)
    assert all(isinstance(answer, Mask) for answer in answers)
    said = np.stack([answer.classes for answer in answers])
    there = np.stack([np.array(Image.open(held_out / "masks" / path.name)) for path in paths])
    iou = [
        ((said == n) & (there == n)).sum() / (((said == n) | (there == n)) & (there != 255)).sum()
        for n in (0, 1)
    ]
    figures = result.evaluation
    assert figures.per_class_iou == dict(zip(CLASSES, map(pytest.approx, iou), strict=True))
    assert figures.metrics["mean_iou"] == pytest.approx(np.mean(iou))
    assert figures.metrics["pixel_accuracy"] == pytest.approx((said == there)[there != 255].mean())
    assert figures.confusion_matrix is not None
    assert np.sum(figures.confusion_matrix) == (there != 255).sum()
    assert (figures.main_metric, figures.accuracy) == ("mean_iou", None)
    assert iou[1] > 0.3, "where one that always says background has 0"


def test_a_run_that_was_taken_up_again_ends_with_the_same_bits_and_figures(
    make_outline_spec: MakeSpec, run_here: RunHere, task_data: Path
) -> None:
    spec = make_outline_spec(
        train=masked(task_data / "more-outlines"),
        validation_fraction=0.2,
        preprocessing={"augment": "crop_flip"},
        hyperparameters={**QUICK, "n_epochs": 2},
    )
    whole = run_here(spec, "whole")
    earlier = whole.of_type("checkpoint")[-2]

    resumed = run_here(spec.model_copy(update={"resume_from": str(whole.out / earlier.folder)}), "resumed")

    assert earlier.metrics.keys() > {"train_pixel_accuracy", "validation_mean_iou"}
    assert resumed.result.ranks.checksum == whole.result.ranks.checksum
    assert resumed.result.evaluation == whole.result.evaluation
    assert resumed.result.epochs == whole.result.epochs


@pytest.mark.slow
def test_torchvisions_network_trains_its_two_heads_and_is_used(
    make_spec: MakeSpec, run_here: RunHere, task_data: Path
) -> None:
    name, outlines = "deeplabv3_mobilenet_v3_large", task_data / "outlines"
    told = {"task": "segmentation", "num_classes": 2, "class_names": CLASSES, "train": masked(outlines)}
    spec = make_spec(name, **told, size=(32, 32), freeze="backbone", hyperparameters={**QUICK, "n_epochs": 1})

    ran = run_here(spec)

    heads = ("classifier.4", "aux_classifier.4")
    trained = {f"{head}.{tensor}" for head in heads for tensor in ("weight", "bias")}
    assert set(load_file(ran.out / "trainable.safetensors")) == trained
    assert ran.result.frozen_proof.unchanged
    (answer,) = predict(load_model(ran.out), sorted((outlines / "images").iterdir())[:1])
    assert isinstance(answer, Mask)
    assert set(np.unique(answer.classes)) <= {0, 1}


def test_a_mask_is_written_in_the_pictures_own_size_with_a_palette(
    make_outline_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    ran = run_here(make_outline_spec(hyperparameters={**QUICK, "n_epochs": 1}))
    Image.new("RGB", (50, 40)).save(tmp_path / "wide.png")

    (answer,) = predict(load_model(ran.out), [tmp_path / "wide.png"])

    assert isinstance(answer, Mask)
    answer.save(tmp_path / "made" / "wide-mask.png")
    with Image.open(tmp_path / "made" / "wide-mask.png") as made:
        assert (made.size, made.mode) == ((50, 40), "P")
        assert set(np.unique(np.array(made))) <= {0, 1}
    assert sum(answer.shares.values()) == pytest.approx(1)


@pytest.mark.slow
def test_torchvisions_smallest_network_learns_with_its_backbone_frozen_by_path(
    make_outline_spec: MakeSpec, run_here: RunHere, task_data: Path
) -> None:
    spec = make_outline_spec(
        model="lraspp_mobilenet_v3_large",
        train=masked(task_data / "more-outlines"),
        validation_fraction=0.1,
        size=(64, 64),
        hyperparameters={"batch_size": 30},
    )

    ran = run_here(spec)

    trained = load_file(ran.out / "trainable.safetensors")
    assert {name.partition(".")[0] for name in trained} == {"classifier"}
    assert {trained[f"{head}.weight"].shape[0] for head in spec.target.head} == {2}
    assert ran.result.frozen_proof.unchanged
    assert ran.result.frozen_proof.n_buffers > 100
    (answer,) = predict(load_model(ran.out), sorted((task_data / "outlines" / "images").iterdir())[:1])
    assert isinstance(answer, Mask)


@pytest.mark.parametrize("kind", ["flip", "crop_flip"])
def test_a_mask_is_mirrored_and_cut_with_its_picture(tmp_path: Path, kind: Any) -> None:
    """The pictures are white where their masks are 1, in large patches."""
    patches = np.random.default_rng(0).integers(0, 2, (12, 5, 8)).repeat(16, axis=1).repeat(16, axis=2)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, patch in enumerate(patches):
        Image.fromarray((patch * 255).astype(np.uint8)).save(tmp_path / "images" / f"{number:02}.png")
        (tmp_path / "masks" / f"{number:02}.png").write_bytes(png(patch))
    names = [f"{number:02}.png" for number in range(12)]
    images, masks = (
        FolderPictures(tmp_path, [f"{folder}/{name}" for name in names]) for folder in ("images", "masks")
    )
    samples = Samples(images, NoLabels(12), Masks(masks, n_classes=2))
    pictures = Pictures(samples, 80, 128, np.arange(12), None)

    plain, augmented = (
        pictures.batch(range(12)),
        Augmentation(kind, seed=1).batch(pictures, range(12), epoch=0),
    )

    assert augmented.shape == (12, 4, 80, 128)
    moved = (augmented != plain).flatten(1).any(dim=1)
    assert moved.any()
    is_same = (augmented[:, 0] > 127) == (augmented[:, 3] == 1)
    assert is_same.all() if kind == "flip" else is_same.float().mean() > 0.98
    assert set(augmented[:, 3].unique().tolist()) == {0, 1}


def test_a_smaller_mask_holds_only_values_that_were_there() -> None:
    layers = torch.cat([torch.full((3, 9, 9), 100), torch.full((1, 9, 9), 1)]).to(torch.uint8)
    layers[3, ::2] = 255

    small = resized(layers, 4, 5)

    assert small.shape == (4, 4, 5)
    assert set(small[3].unique().tolist()) <= {1, 255}


def test_pixels_that_do_not_count_change_nothing_and_half_of_the_auxiliary_loss_is_added() -> None:
    task = Segmentation(["a", "b", "c"], 0.1)
    generator = torch.Generator().manual_seed(0)
    scores, others = torch.randn((2, 2, 3, 4, 4), generator=generator)
    target = torch.randint(0, 3, (2, 4, 4), generator=generator)
    target[:, 0] = 255
    expected = cross_entropy(scores, target, ignore_index=255, label_smoothing=0.1)

    elsewhere = scores.clone()
    elsewhere[:, :, 0] = 100 * others[:, :, 0]

    assert torch.allclose(task.loss(scores, target), expected)
    assert torch.allclose(task.loss({"out": elsewhere}, target), expected)
    with_aux = task.loss({"out": scores, "aux": others}, target)
    assert torch.allclose(with_aux, expected + 0.5 * task.loss(others, target))
    assert task.loss(scores, torch.full_like(target, 255)).item() == 0.0


def test_a_class_that_is_neither_there_nor_said_has_no_iou() -> None:
    counts = Segmentation(["a", "b", "c"], 0.0).new_counts()
    scores = torch.tensor([[[[9.0, 0.0]], [[0.0, 9.0]], [[-9.0, -9.0]]]])

    counts.add(scores, torch.tensor([[[0, 0]]]))

    found = counts.evaluation()
    assert found.per_class_iou == {"a": 0.5, "b": 0.0, "c": None}
    assert found.metrics == {"mean_iou": 0.25, "pixel_accuracy": 0.5}
    assert found.confusion_matrix == [[1, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_masks_of_one_channel_are_read_by_their_values() -> None:
    values = [[0, 1], [2, 255]]
    for content in (png(values), png(values, "P")):
        assert decode_mask(content, 3).tolist() == [values]
    bits = png(np.array([[0, 255]]), "1")
    assert decode_mask(bits, 2).tolist() == [[[0, 1]]]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (png([[0, 3]]), "holds the value 3; the classes are 0 to 2"),
        (png([[0, 1]], "RGB"), r"3 channels \(RGB\)"),
        (png([[0, 1]], "LA"), "2 channels"),
        (b"no picture", "no known picture format"),
        (b"", "no known picture format"),
    ],
)
def test_other_masks_are_refused_with_what_is_wrong(content: bytes, told: str) -> None:
    with pytest.raises(Unreadable, match=told):
        decode_mask(content, 3)


def test_greys_that_would_be_stretched_are_refused() -> None:
    packed = bytearray(png([[0, 1, 2, 3]], "P", bits=4))
    header = packed.index(b"IHDR")
    packed[header + 13] = 0  # grey instead of a palette
    import zlib  # noqa: PLC0415  # for this one checksum

    packed[header + 17 : header + 21] = zlib.crc32(packed[header : header + 17]).to_bytes(4, "big")
    with pytest.raises(Unreadable, match="fewer than 8 bits"):
        decode_mask(bytes(packed), 5)


def test_masks_that_do_not_fit_their_pictures_are_named(
    make_outline_spec: MakeSpec, run_here: RunHere, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for folder in ("images", "masks"):
        (data / folder).mkdir(parents=True)
    for number in range(40):
        Image.new("RGB", (8, 8)).save(data / "images" / f"{number}.jpg")
        side, value = (9, 0) if number == 3 else (8, 2) if number == 5 else (8, number % 2)
        (data / "masks" / f"{number}.png").write_bytes(png(np.full((side, 8), value)))

    refused = run_here(make_outline_spec(train=masked(data)), "refused")
    allowed = run_here(
        make_outline_spec(train=masked(data), preprocessing={"max_unreadable_fraction": 0.1}), "allowed"
    )

    assert refused.error["code"] == "bad_data"
    assert (
        "images/3.jpg (its mask masks/3.png: it has 9x8 pixels and its picture 8x8)"
        in refused.error["message"]
    )
    assert "its mask masks/5.png: it holds the value 2" in refused.error["message"]
    assert allowed.result.skipped_images == ["images/3.jpg", "images/5.jpg"]
    assert allowed.result.n_train_samples == 38


def test_a_network_that_scores_pictures_is_refused_for_pixels(
    make_spec: MakeSpec, run_here: RunHere, task_data: Path
) -> None:
    ran = run_here(
        make_spec(
            task="segmentation", train=masked(task_data / "outlines"), class_names=CLASSES, num_classes=2
        )
    )

    assert ran.error["code"] == "bad_model_output"
    assert "into [16, 2]" in ran.error["message"]
    assert "[16, 2, 14, 14], class scores for each pixel" in ran.error["message"]
