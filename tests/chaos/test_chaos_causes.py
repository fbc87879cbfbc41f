"""Which fault a loss is laid to, and what recovery is measured from it."""

from __future__ import annotations

from typing import Any

from harness.causes import losses, unexplained
from harness.injections import Injection
from harness.injector import Injected
from harness.plan import LOST_S, SHORT_S, Fault, Kind
from harness.recovery import Recovery, recoveries
from harness.testimony import AttemptLog, RankLog
from harness.workload import Ended, Followed

from thaw.shapes import Event, Job

KILL = Kind("kill", "rank")


def move(at: float, new: str, actor: str = "scheduler") -> tuple[float, Event]:
    return at, Event(0, "state", "info", "", at, {"new": new}, {"actor": actor})


FOLLOWED = Followed(
    "job",
    "alone",
    [
        move(0, "queued"),
        move(1, "dispatched"),
        move(2, "running", "node-1"),
        move(50, "queued", "node-1"),
        move(55, "dispatched"),
        move(57, "running", "node-2"),
        move(90, "succeeded", "node-2"),
    ],
)
ATTEMPTS = [
    {"id": "one", "outcome": "lost", "nodes": [{"node": "node-0"}, {"node": "node-1"}]},
    {"id": "two", "outcome": "succeeded", "nodes": [{"node": "node-2"}]},
]
ENDED = {"job": Ended(Job("job", "m", "succeeded", "succeeded", {"attempts": ATTEMPTS}), [], [], None)}


def fault(at: float, kind: Kind, **where: Any) -> Injected:
    injection = Injection("it", for_s=kind.for_s, **where)
    return Injected(Fault(1, at, kind, 0.0), at, injection, at + kind.for_s)


def cause(*faults: Injected) -> Injected | None:
    (loss,) = losses([FOLLOWED], ENDED, faults, 1.0)
    assert (loss.attempt, loss.nodes, loss.at) == ("one", ("node-0", "node-1"), 50)
    return loss.cause


def test_a_loss_is_laid_to_the_last_fault_that_could_have_done_it() -> None:
    kill = fault(48, KILL, node="node-1", attempt="one")
    older = fault(20, KILL, node="node-1", attempt="one")
    too_short = fault(49, Kind("stop", "pool", SHORT_S), node="node-1", attempt="one")

    assert cause(older, kill, too_short) is kill


def test_a_fault_elsewhere_or_later_did_not_do_it() -> None:
    on_another_node = fault(48, KILL, node="node-2", attempt="three")
    of_the_scheduler = fault(48, Kind("kill", "scheduler"))
    afterwards = fault(51, KILL, node="node-1", attempt="one")
    everywhere = fault(5, Kind("black-hole all from", "postgres", LOST_S))

    assert cause(on_another_node, of_the_scheduler, afterwards) is None
    assert cause(everywhere, on_another_node) is everywhere


def test_a_loss_without_a_fault_is_told() -> None:
    found = losses([FOLLOWED], ENDED, [], 1.0)

    assert unexplained(found) == ["job: one on node-0 and node-1 was lost, and nothing was done to it"]


def recovery(*others: Injected) -> Recovery:
    """Killed at 40, queued from 50 to 55, running at 57, the next step at 70."""
    kill = fault(40, KILL, node="node-1", attempt="one")
    second = RankLog("job", "two", 0, 2, "s", 60, 90, ((70.0, 3),), True)
    logs, found = [AttemptLog("job", "two", (second,))], losses([FOLLOWED], ENDED, [kill], 1.0)
    (measured,) = recoveries([FOLLOWED], ENDED, logs, found, [kill, *others])
    return measured


def test_recovery_is_from_the_fault_to_the_next_step_less_the_wait_for_a_slot() -> None:
    measured = recovery()

    assert measured == Recovery("job", "kill rank", noticing=12.0, waiting=5.0, starting=13.0)
    assert measured.seconds == 25.0


def test_an_outage_of_what_everybody_needs_is_left_out_of_a_recovery_once() -> None:
    without_store = fault(53, Kind("black-hole all from", "store", SHORT_S))  # to 63, from 53 to 55 queued
    without_postgres = fault(44, Kind("restart", "postgres", 2.0))
    for_one_node = fault(41, Kind("cut one node from", "store", LOST_S), node="node-1")
    without_redis = fault(41, Kind("cut all from", "redis", LOST_S))
    before = fault(10, Kind("cut all from", "store", SHORT_S))

    measured = recovery(without_store, without_postgres, for_one_node, without_redis, before)

    assert measured == Recovery("job", "kill rank", noticing=8.0, waiting=15.0, starting=7.0)
