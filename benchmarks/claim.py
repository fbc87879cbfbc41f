"""How long the protocol's own statements take, with no finished job in the database and with 100,000.

Place passes read the nodes and the queue and offer as many jobs as there are free slots, as many a pass as it
places at most; then each is claimed, renewed and finished, as workers do it: one transaction a call, durable,
over a Unix socket. Claims are made one after the other, and by eight threads of this process at once, which
then wait for one another too: on two cores that figure tells of Python more than of the database. `idle pass`
is a pass over an empty queue, which every scheduler makes twice a second; `reconcile` is a round that finds
nothing to put right.

Wanted is a p99 of a claim below 50 ms with 100,000 finished jobs, on an idle machine; on a busy one look at
the median, and at what 100,000 finished jobs add to it. Below the table: which tables were read from end to
end while this ran, for a scan of the finished jobs would not show in a small database. Writes
benchmarks/results/claim.json. Run it with `make bench`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar
from uuid import UUID, uuid4

from _api import bench
from _protocol import NODES, SLOTS, add_jobs, furnish, reset_counters, sequential_scans
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from scheduler.placing import place_jobs
from scheduler.reconciling import admit_jobs, answer_silence, expire_the_lost, let_go_stopped_offers
from shared.db import leases
from shared.db.engine import make_engine
from shared.db.leases import Claim
from shared.db.placement import Offer
from shared.db.steps import run_step
from shared.domain.job import Outcome
from shared.settings import Settings

RESULTS = Path(__file__).parent / "results" / "claim.json"
FINISHED = (0, 100_000)
ROUNDS = 2
CLAIMERS = 8
IDLE_PASSES = 200
WANTED_P99_MS = 50.0
Made = TypeVar("Made")


def main() -> None:
    load = os.getloadavg()[0]
    measured = [_measured(n_finished) for n_finished in FINISHED]
    rows = [row for rows, _ in measured for row in rows]
    scans = {str(number): found for number, (_, found) in zip(FINISHED, measured, strict=True)}
    result = {
        "unit": "ms",
        "wanted_p99_of_claim": WANTED_P99_MS,
        "load_at_start": load,
        "calls": rows,
        "sequential_scans": scans,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    _show(rows, scans, load)


def _measured(n_finished: int) -> tuple[list[dict[str, Any]], list[tuple[str, int, int]]]:
    with bench() as ground:
        url = ground.house.env["THAW_DATABASE_URL"]
        engine = make_engine(url, statement_timeout_s=60, pool_size=CLAIMERS)
        settings = Settings(
            database_url=url,
            redis_url="redis://127.0.0.1:1/0",
            store_url="file:///nowhere",
            # These nodes are rows, which nobody keeps alive.
            node_heartbeat_s=3600,
            lease_s=36_000,
        )
        lives = furnish(engine, n_finished)
        reset_counters(engine)
        times = Times()
        for number in range(ROUNDS):
            for claimers in (1, CLAIMERS):
                _round(engine, settings, lives, times, f"ftjob-{number}-{claimers}-", claimers)
        _idle(engine, settings, times)
        scans = list(sequential_scans(engine))
        engine.dispose()
    return [_row(n_finished, what, taken) for what, taken in times.taken.items()], scans


class Times:
    """Milliseconds of each call, by what was called."""

    def __init__(self) -> None:
        self.taken: dict[str, list[float]] = {}

    def of(self, what: str, act: Callable[[], Made]) -> Made:
        began = time.perf_counter()
        made = act()
        self.taken.setdefault(what, []).append((time.perf_counter() - began) * 1000)
        return made


def _round(
    engine: Engine, settings: Settings, lives: dict[str, UUID], times: Times, name: str, claimers: int
) -> None:
    """As many jobs as there are slots, from the queue to their end."""
    add_jobs(engine, name, NODES * SLOTS)
    offers: list[Offer] = []
    while len(offers) < NODES * SLOTS:
        placed = times.of("pass that places", lambda: run_step(engine, place_jobs, settings))
        assert placed, f"{len(offers)} of {NODES * SLOTS} jobs were placed, and then none"
        offers += placed
    who = "claim" if claimers == 1 else f"claim, {claimers} at once"
    with ThreadPoolExecutor(claimers) as pool:
        claims = list(pool.map(lambda offer: times.of(who, lambda: _claim(engine, lives, offer)), offers))
    for claim in claims:
        times.of("renew", lambda claim=claim: _renew(engine, claim))
    for claim in claims:
        times.of("finish", lambda claim=claim: _finish(engine, claim))


def _claim(engine: Engine, lives: dict[str, UUID], offer: Offer) -> Claim:
    claimed = run_step(
        engine,
        leases.claim,
        allocation_id=offer.allocation_id,
        dispatch_seq=offer.dispatch_seq,
        node_id=offer.node_id,
        incarnation=lives[offer.node_id],
        lease_s=60,
        claim_id=uuid4(),
    )
    assert claimed is not None
    return claimed


def _renew(engine: Engine, claim: Claim) -> None:
    renewal = run_step(engine, leases.renew, token=claim.token, allocation_id=claim.allocation_id, lease_s=60)
    assert renewal is not None


def _finish(engine: Engine, claim: Claim) -> None:
    assert run_step(
        engine,
        leases.finish,
        token=claim.token,
        allocation_id=claim.allocation_id,
        outcome=Outcome.SUCCEEDED,
        error=None,
        result={"accuracy": 0.9},
        artifacts=(),
        clean=True,
        actor="bench",
    )


def _idle(engine: Engine, settings: Settings, times: Times) -> None:
    for _ in range(IDLE_PASSES):
        times.of("idle pass", lambda: _look(engine, settings))
        times.of("reconcile", lambda: _reconcile(engine, settings))


def _look(engine: Engine, settings: Settings) -> None:
    admit_jobs(engine)
    let_go_stopped_offers(engine)
    run_step(engine, place_jobs, settings)


def _reconcile(engine: Engine, settings: Settings) -> None:
    answer_silence(engine, settings)
    expire_the_lost(engine, settings)


def _row(n_finished: int, what: str, taken: Sequence[float]) -> dict[str, Any]:
    p99 = quantiles(taken, n=100, method="inclusive")[98] if len(taken) > 1 else taken[0]
    figures = {"n": len(taken), "least": min(taken), "p50": median(taken), "p99": p99, "most": max(taken)}
    return {"finished jobs": n_finished, "call": what, **figures}


def _show(rows: Sequence[dict[str, Any]], scans: dict[str, list[tuple[str, int, int]]], load: float) -> None:
    console = Console()
    table = Table(*rows[0], title=f"milliseconds a call; load at the start {load:.1f}")
    for found in rows:
        table.add_row(
            *(
                f"{value:.2f}"
                if isinstance(value, float)
                else f"{value:,}"
                if isinstance(value, int)
                else value
                for value in found.values()
            )
        )
    console.print(table)
    for number, found in scans.items():
        told = ", ".join(f"{name} {n} times, {rows} rows" for name, n, rows in found) or "none"
        console.print(f"read from end to end with {int(number):,} finished jobs: {told}")
    worst = max(row["p99"] for row in rows if row["call"] == "claim")
    console.print(f"claim: the worst p99 is {worst:.1f} ms, wanted is less than {WANTED_P99_MS:g} ms")


if __name__ == "__main__":
    main()
