"""How long a whole scheduling pass takes, database and all: 10,000 queued jobs, 1,000 nodes, 50 teams.

The cluster of `fair_share_pass.py` as rows, beside 100,000 finished jobs of the last four weeks. Moments:
`nothing to place`, a full cluster whose waiting jobs know why they wait; `first reasons`, the same while none
of them has been told yet; `500 slots free`, which are filled; and `empty`, where as much is placed as one
pass may. Each pass is one transaction, durable, over a Unix socket, and what it has done is undone before the
next. Below: what is read for a pass, each by itself, at the first moment.

Wanted is a p99 below 1 s on an idle machine; on a busy one look at the median and the least. Writes
benchmarks/results/whole_pass.json. Run it with `.venv/bin/python benchmarks/whole_pass.py`.
"""

from __future__ import annotations

import gc
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from _api import bench
from _moment_rows import settle, write_finished, write_moment
from fair_share_pass import NODES, QUEUED, TEAMS, Moment, drawn
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from scheduler.placing import place_jobs
from shared.db.engine import make_engine, transaction
from shared.db.held_slots import load_running
from shared.db.past_usage import PastUsage
from shared.db.placement import Offer, load_nodes, load_queue
from shared.db.quotas import load_shares
from shared.db.steps import run_step
from shared.settings import Settings

RESULTS = Path(__file__).parent / "results" / "whole_pass.json"
FINISHED = 100_000
PASSES = 30
WANTED_P99_MS = 1000.0

_UNDO = """
update slots set state = 'free', allocation_id = null
where allocation_id in (select id from allocations where state = 'offered');
delete from allocations where state = 'offered';
delete from attempts where state = 'offered';
delete from events where job_id in (select id from jobs where state = 'dispatched');
update jobs set state = 'queued', n_events = 0, dispatched_at = null where state = 'dispatched'
"""
_FORGET_REASONS = "update jobs set wait_reason = null where state = 'queued'"


def full() -> Moment:
    return drawn(0.0, owners=0)


def with_free(slots: int) -> Moment:
    """The full cluster, where so many slots have come free."""
    moment, chance = full(), random.Random(6)
    running, free = list(moment.running), dict.fromkeys((node.id for node in moment.nodes), 0)
    chance.shuffle(running)
    while sum(free.values()) < slots:
        for node, n_slots in running.pop().held:
            free[node] += n_slots
    nodes = [replace(node, free_slots=tuple(range(free[node.id]))) for node in moment.nodes]
    return replace(moment, nodes=nodes, running=running)


# By name: the cluster, and what is done before each pass.
MOMENTS: dict[str, tuple[Callable[[], Moment], str]] = {
    "nothing to place": (full, ""),
    "first reasons": (full, _FORGET_REASONS),
    "500 slots free": (lambda: with_free(500), _UNDO),
    "empty": (lambda: drawn(1.0, owners=0), _UNDO),
}


def main() -> None:
    load = os.getloadavg()[0]
    rows, parts = [], []
    for name, (make, before) in MOMENTS.items():
        with bench() as ground:
            url = ground.house.env["THAW_DATABASE_URL"]
            engine = make_engine(url, statement_timeout_s=60)
            moment = make()
            write_moment(engine, moment)
            write_finished(engine, moment, FINISHED)
            settle(engine)
            rows.append(measured(name, engine, settings_of(url), before))
            if not parts:
                parts = parts_of(engine, settings_of(url))
            engine.dispose()
    facts = {"nodes": NODES, "queued": QUEUED, "teams": TEAMS, "finished": FINISHED, "load_at_start": load}
    result = {"unit": "ms", "wanted_p99": WANTED_P99_MS, **facts, "passes": rows, "parts": parts}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    show(rows, parts, load)


def settings_of(url: str) -> Settings:
    """These nodes are rows, which nobody keeps alive."""
    return Settings(
        database_url=url,
        redis_url="redis://127.0.0.1:1/0",
        store_url="file:///nowhere",
        node_heartbeat_s=36_000,
    )


def measured(name: str, engine: Engine, settings: Settings, before: str) -> dict[str, Any]:
    """The times of passes, the first of which asks back what is asked back, and is not counted."""
    past = PastUsage(settings.usage_half_life_s)
    offers = placed(engine, settings, past)
    taken = []
    for _ in range(PASSES):
        prepared(engine, before)
        gc.collect()
        began = time.perf_counter()
        offers = placed(engine, settings, past)
        taken.append((time.perf_counter() - began) * 1000)
    return {"moment": name, **figures(taken), "placed": len(offers), "told why": told(engine)}


def placed(engine: Engine, settings: Settings, past: PastUsage) -> list[Offer]:
    return run_step(engine, place_jobs, settings, past)


def prepared(engine: Engine, statements: str) -> None:
    with transaction(engine) as session:
        for statement in filter(None, statements.split(";")):
            session.execute(text(statement))
    settle(engine)


def told(engine: Engine) -> int:
    query = "select count(*) from jobs where state = 'queued' and wait_reason is not null"
    with transaction(engine) as session:
        return int(session.scalar(text(query)) or 0)


def parts_of(engine: Engine, settings: Settings) -> list[dict[str, Any]]:
    """What is read for a pass, each by itself."""
    past = PastUsage(settings.usage_half_life_s)
    reads: dict[str, Callable[[Any], object]] = {
        "the queue": load_queue,
        "the nodes": lambda session: load_nodes(session, heard_within_s=settings.heard_within_s),
        "what runs": load_running,
        "quotas": load_shares,
        "the past": past.read,
        "the past, from its beginning": lambda session: PastUsage(settings.usage_half_life_s).read(session),
    }
    rows = []
    for name, read in reads.items():
        taken = []
        for _ in range(PASSES):
            began = time.perf_counter()
            run_step(engine, read)
            taken.append((time.perf_counter() - began) * 1000)
        rows.append({"read": name, **figures(taken)})
    return rows


def figures(taken: list[float]) -> dict[str, float]:
    p99 = quantiles(taken, n=100, method="inclusive")[98]
    return {"least": min(taken), "p50": median(taken), "p99": p99}


def show(rows: list[dict[str, Any]], parts: list[dict[str, Any]], load: float) -> None:
    title = f"one pass, {QUEUED:,} queued, {NODES:,} nodes; ms; load {load:.1f}"
    for table_title, found in ((title, rows), ("reading for a pass; ms", parts)):
        table = Table(title=table_title)
        for number, column in enumerate(found[0]):
            table.add_column(column, justify="right" if number else "left")
        for each in found:
            table.add_row(
                *(f"{value:.1f}" if isinstance(value, float) else str(value) for value in each.values())
            )
        Console().print(table)


if __name__ == "__main__":
    main()
