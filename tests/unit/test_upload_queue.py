"""What waits for its upload: a slow store gets the newest checkpoint and the best one, and every shard."""

from __future__ import annotations

from shared.domain.events import CheckpointLine, ShardLine
from worker.upload_queue import UploadQueue


def checkpoint(step: int, *, is_best: bool = False) -> CheckpointLine:
    return CheckpointLine(time=0, epoch=1, step=step, folder=f"step-{step}", is_best=is_best, metrics={})


def shard(number: int) -> ShardLine:
    return ShardLine(time=0, file=f"shard-{number}", n_samples=1)


def waiting(queue: UploadQueue) -> list[int | str]:
    found: list[int | str] = []
    while (line := queue.next(0.0)) is not None:
        found.append(line.step if isinstance(line, CheckpointLine) else line.file)
    return found


def test_a_newer_checkpoint_takes_the_place_of_those_that_wait_but_for_the_best() -> None:
    queue = UploadQueue()
    for step, is_best in [(1, True), (2, False), (3, True), (4, False), (5, False)]:
        queue.add(checkpoint(step, is_best=is_best))
    assert waiting(queue) == [3, 5]
    assert queue.is_empty()


def test_one_that_is_newest_and_best_is_all_that_waits() -> None:
    queue = UploadQueue()
    for step in (1, 2, 3):
        queue.add(checkpoint(step, is_best=True))
    assert waiting(queue) == [3]


def test_no_shard_is_left_out_and_all_keep_their_order() -> None:
    queue = UploadQueue()
    for line in (shard(0), checkpoint(1), shard(1), checkpoint(2), shard(2)):
        queue.add(line)
    assert waiting(queue) == ["shard-0", "shard-1", 2, "shard-2"]
