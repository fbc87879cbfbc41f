"""The checker of the chaos runs finds what it is there for: made-up accounts, each with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness import testimony
from harness.checker import Verdict, judge
from harness.testimony import RankLog
from harness.workload import Ended, Followed

from thaw.shapes import Event, Job

LAST_STEP = 4


def log(attempt: str, at: float, steps: range, **changes: Any) -> RankLog:
    """A rank that takes a second for each step; it began a second before the first."""
    facts: dict[str, Any] = {
        "job": "job",
        "attempt": attempt,
        "rank": 0,
        "pid": 1,
        "slot": "slot-0",
        "first": at,
        "last": at + len(steps) + 1,
        "steps": tuple((at + n, step) for n, step in enumerate(steps, start=1)),
        "ended_well": steps.stop == LAST_STEP + 1,
    }
    return RankLog(**{**facts, **changes})


def event(seq: int, new: str) -> Event:
    return Event(seq, "state", "info", "", 0.0, {"new": new}, {})


class Account:
    """A job that was killed after its third step, went on behind the second, and succeeded; to be spoiled."""

    def __init__(self) -> None:
        self.logs = [log("one", 0.0, range(1, 4)), log("two", 10.0, range(3, 5))]
        self.attempts: list[dict[str, Any]] = [
            {"id": "one", "outcome": "lost", "nodes": [{"slots": [0, 1]}]},
            {"id": "two", "outcome": "succeeded", "nodes": [{"slots": [0, 1]}]},
        ]
        states = ("queued", "dispatched", "running", "queued", "dispatched", "running", "succeeded")
        self.events = [event(number, state) for number, state in enumerate(states, start=1)]
        self.heard = list(self.events)
        self.status = "succeeded"
        self.weights = "the same"

    def verdict(self) -> Verdict:
        job = Job("job", "m", self.status, self.status, {"attempts": self.attempts})
        ended = Ended(job, self.events, ["model.safetensors"], self.weights)
        followed = Followed("job", "alone", [(0.0, one) for one in self.heard])
        return judge([followed], {"job": ended}, {"alone": "the same"}, self.logs, LAST_STEP)


def test_what_went_as_promised_is_called_so() -> None:
    assert Account().verdict() == Verdict()


@pytest.mark.parametrize(("slots", "is_wrong"), [([[0], [0]], False), ([[0, 1]], True)])
def test_a_rank_that_died_behind_the_last_step_counts_where_the_result_was_made(
    slots: list[list[int]], is_wrong: bool
) -> None:
    account = Account()
    account.attempts[1]["nodes"] = [{"slots": of_node} for of_node in slots]
    other = log("two", 10.0, range(3, 5), rank=1, pid=2, slot="slot-1", ended_well=False)
    account.logs.append(other)
    assert bool(account.verdict().wrong) is is_wrong


def spoil_status(account: Account) -> None:
    account.status = "failed"


def spoil_with_a_second_winner(account: Account) -> None:
    account.attempts[0]["outcome"] = "succeeded"


def spoil_with_a_second_end(account: Account) -> None:
    account.events.append(event(8, "succeeded"))
    account.heard = account.events


def spoil_with_an_overlap(account: Account) -> None:
    account.logs[1] = log("two", 3.5, range(3, 5), slot="slot-1")


def spoil_with_a_late_line_of_a_second_rank(account: Account) -> None:
    account.logs.append(log("one", 0.0, range(1, 4), rank=1, pid=2, slot="slot-1", last=12.0))


def spoil_with_one_slot_for_two(account: Account) -> None:
    account.logs.append(log("other", 11.0, range(1, 5), job="stranger"))


def spoil_weights(account: Account) -> None:
    account.weights = "others"


def spoil_with_a_gap_of_events(account: Account) -> None:
    del account.events[2]
    account.heard = account.events


def spoil_what_the_follower_heard(account: Account) -> None:
    account.heard = [*account.events, account.events[-1]]


def spoil_with_a_step_left_out(account: Account) -> None:
    account.logs[0] = log("one", 0.0, range(1, 2))


def spoil_with_a_step_twice(account: Account) -> None:
    account.logs[0] = replace(account.logs[0], steps=((1.0, 1), (2.0, 2), (3.0, 2)))


def spoil_the_last_step(account: Account) -> None:
    account.logs[1] = log("two", 10.0, range(3, 4), ended_well=True)


def spoil_with_a_second_start(account: Account) -> None:
    account.logs.append(log("two", 20.0, range(3, 5), pid=9))


def spoil_with_an_unknown_attempt(account: Account) -> None:
    account.logs.append(log("three", 20.0, range(3, 5)))


def spoil_with_a_winner_that_was_killed(account: Account) -> None:
    account.logs[1] = log("two", 10.0, range(3, 5), ended_well=False)


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (spoil_status, "lost"),
        (spoil_with_a_second_winner, "doubled"),
        (spoil_with_a_second_end, "doubled"),
        (spoil_with_an_overlap, "overlapping"),
        (spoil_with_a_late_line_of_a_second_rank, "overlapping"),
        (spoil_with_one_slot_for_two, "overlapping"),
        (spoil_weights, "wrong"),
        (spoil_with_a_gap_of_events, "wrong"),
        (spoil_what_the_follower_heard, "wrong"),
        (spoil_with_a_step_left_out, "wrong"),
        (spoil_with_a_step_twice, "wrong"),
        (spoil_the_last_step, "wrong"),
        (spoil_with_a_second_start, "wrong"),
        (spoil_with_an_unknown_attempt, "wrong"),
        (spoil_with_a_winner_that_was_killed, "wrong"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_went_otherwise_is_found(spoil: Callable[[Account], None], kind: str) -> None:
    account = Account()

    spoil(account)

    assert getattr(account.verdict(), kind) != []


def test_a_line_that_was_cut_off_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    start = {"t": 1.0, "what": "start", "job": "j", "attempt": "a", "rank": 0, "pid": 7, "slot": "s"}
    lines = [start, {"t": 2.0, "what": "step", "step": 1}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"t": 3.0, "wh'
    (tmp_path / "a-0-7.jsonl").write_text(text)
    (tmp_path / "a-1-8.jsonl").write_text("")

    found = testimony.read_logs(tmp_path)

    assert [(one.first, one.last, one.steps, one.ended_well) for one in found] == [
        (1.0, 2.0, ((2.0, 1),), False)
    ]
