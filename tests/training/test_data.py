"""Which pictures are seen, when, and by whom."""

from __future__ import annotations

from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from trainer_runs import MakeSpec, RunHere

from shared.domain.events import DataSource
from worker.training.data import Samples, open_samples
from worker.training.images import Unreadable, decode
from worker.training.loading import Batches
from worker.training.pictures import open_pictures
from worker.training.ranks import Ranks
from worker.training.sampling import TrainingOrder, evaluation_batches, split
from worker.training.transforms import Augmentation


def open_digits(folder: Path) -> Samples:
    source = DataSource(path=str(folder), format="image_folder")
    return open_samples(source, "classification", [str(i) for i in range(10)])


ALONE = Ranks(0, 1, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize("n", [1, 2, 37, 64])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_validation_sample_is_seen_once(n: int, world_size: int) -> None:
    indices = np.arange(100, 100 + n)

    seen = [
        index
        for rank in range(world_size)
        for batch in evaluation_batches(indices, 8, rank, world_size)
        for index in batch
    ]

    assert sorted(seen) == indices.tolist()


def test_an_epoch_gives_each_sample_to_one_rank_and_the_next_one_another_order() -> None:
    order = TrainingOrder(np.arange(70), batch_size=16, world_size=2, seed=1)

    first = [batch for rank in (0, 1) for batch in order.batches(0, rank)]
    second = [batch for rank in (0, 1) for batch in order.batches(1, rank)]

    assert order.steps_per_epoch == 5
    assert [len(batch) for batch in order.batches(0, 0)] == [8, 8, 8, 8, 3]
    assert sorted(chain(*first)) == list(range(70))
    assert sorted(chain(*second)) == list(range(70))
    assert first != second


def test_a_rest_too_small_to_share_is_left_out_of_the_epoch() -> None:
    order = TrainingOrder(np.arange(35), batch_size=16, world_size=2, seed=1)

    assert order.last_batch == 0
    assert order.samples_per_epoch == 32
    left_out = [set(range(35)) - set(chain(*order.batches(e, 0), *order.batches(e, 1))) for e in (0, 1)]
    assert left_out[0] != left_out[1]


def test_an_order_taken_up_in_the_middle_is_the_same() -> None:
    order = TrainingOrder(np.arange(70), batch_size=16, world_size=2, seed=1)

    assert list(order.batches(3, 1, first_step=2)) == list(order.batches(3, 1))[2:]


def test_the_ranks_of_any_number_share_the_same_global_batch() -> None:
    alone = next(TrainingOrder(np.arange(64), 16, 1, seed=1).batches(0, 0))
    two = TrainingOrder(np.arange(64), 16, 2, seed=1)

    assert alone == next(two.batches(0, 0)) + next(two.batches(0, 1))


def test_a_split_is_stratified_and_keeps_every_class_in_training() -> None:
    labels = np.array([0] * 50 + [1] * 10 + [2])

    training, validation = split(np.arange(61), labels, 0.2, seed=5)

    assert sorted([*training, *validation]) == list(range(61))
    assert np.bincount(labels[validation], minlength=3).tolist() == [10, 2, 0]
    assert np.array_equal(split(np.arange(61), labels, 0.2, seed=5)[1], validation)


def test_a_split_sets_something_aside_however_small_the_share() -> None:
    training, validation = split(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), 0.01, seed=5)

    assert (len(training), len(validation)) == (5, 1)


def jpeg(colour: tuple[int, int, int]) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (20, 12), colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def test_a_jpeg_is_read_in_the_right_order_of_channels_and_axes() -> None:
    picture = decode(jpeg((200, 100, 20)))

    assert tuple(picture.shape) == (3, 12, 20)
    assert torch.allclose(picture.float().mean(dim=(1, 2)), torch.tensor([200.0, 100.0, 20.0]), atol=3)


@pytest.mark.parametrize("as_struct", [False, True])
def test_parquet_trains(make_spec: MakeSpec, run_here: RunHere, tmp_path: Path, as_struct: bool) -> None:
    pictures = [jpeg((10 + 20 * (i % 10), 0, 255 - 20 * (i % 10))) for i in range(60)]
    column = [{"bytes": picture, "path": None} for picture in pictures] if as_struct else pictures
    table = pa.table({"picture": column, "digit": [i % 10 for i in range(60)]})
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=7)
    source = {
        "path": str(tmp_path / "data.parquet"),
        "format": "parquet",
        "image_column": "picture",
        "label_column": "digit",
    }

    ran = run_here(make_spec(train=source, validation_fraction=0.2, hyperparameters={"n_epochs": 2}))

    assert ran.result.n_train_samples == 50
    assert ran.result.n_validation_samples == 10
    assert [epoch["epoch"] for epoch in ran.result.epochs] == [0, 1]


def test_pictures_that_are_decoded_ahead_are_the_same_as_those_kept_in_memory(digits: Path) -> None:
    samples = open_digits(digits)
    kept, _ = open_pictures(samples, (14, 14), 0.0, ALONE, may_cache=True)
    unkept, _ = open_pictures(samples, (14, 14), 0.0, ALONE, may_cache=False)
    augmentation = Augmentation("flip", seed=3)
    from_memory = Batches(kept, augmentation, ALONE)
    ahead = Batches(unkept, augmentation, ALONE)
    assert (from_memory.n_workers, ahead.n_workers > 0) == (0, True)
    state = torch.get_rng_state()

    for epoch in (0, 1):
        asked = [[1, 2, 3], [50, 4]]
        pairs = zip(from_memory.load(asked, epoch), ahead.load(asked, epoch), strict=True)
        assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in pairs)

    assert torch.equal(torch.get_rng_state(), state)


def test_cropping_gives_the_models_size_and_another_part_each_epoch(digits: Path) -> None:
    samples = open_digits(digits)
    pictures, _ = open_pictures(samples, (14, 14), 0.0, ALONE, may_cache=False)
    augmentation = Augmentation("crop_flip", seed=3)

    first, again, later = (augmentation.batch(pictures, [0, 1, 2], epoch) for epoch in (0, 0, 1))

    assert tuple(first.shape) == (3, 3, 14, 14)
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


def test_training_on_pictures_that_are_decoded_anew_each_epoch(
    make_spec: MakeSpec, run_here: RunHere
) -> None:
    spec = make_spec(preprocessing={"augment": "crop_flip"}, hyperparameters={"n_epochs": 3})

    one, other = run_here(spec, "one"), run_here(spec, "other")

    assert "decoded anew" in one.result.decisions["pictures"]
    assert one.result.ranks.checksum == other.result.ranks.checksum
    assert len(one.result.epochs) == 3


def test_a_picture_of_floating_point_numbers_is_refused_not_clipped_to_black(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "f.tiff")
    with pytest.raises(Unreadable, match="floating-point"):
        decode((tmp_path / "f.tiff").read_bytes())


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000"])
def test_a_picture_is_known_by_its_content(format: str) -> None:
    packed = BytesIO()
    Image.new("RGB", (20, 12), (200, 30, 30)).save(packed, format)
    assert decode(packed.getvalue()).shape == (3, 12, 20)


def test_a_picture_that_would_have_a_program_run_is_none() -> None:
    packed = BytesIO()
    Image.new("RGB", (20, 12), (200, 30, 30)).save(packed, "EPS")
    with pytest.raises(Unreadable, match="no known picture format"):
        decode(packed.getvalue())
