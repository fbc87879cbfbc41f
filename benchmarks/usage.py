"""How long the sums of /v1/usage take with 100,000 finished jobs of 50 teams, 30 days full of them.

Each job held 1 to 8 slots for up to 10 hours; a hundredth of the tries was lost. The query is asked as the
API asks it, over a Unix socket. Wanted is that a month of all teams, grouped by everything, takes below a
second, and a day of it below 100 ms. Writes benchmarks/results/usage.json. Run it with `make bench`.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from _api import bench
from _protocol import furnish
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from shared.db.clock import now
from shared.db.engine import make_engine, transaction
from shared.db.usage import used
from shared.domain.usage import Group, Window

RESULTS = Path(__file__).parent / "results" / "usage.json"
FINISHED = 100_000
ROUNDS = 7
SPANS = {"an hour": 1 / 24, "a day": 1, "30 days": 30}
GROUPS = ((), (Group.TEAM,), (Group.TEAM, Group.DAY), tuple(Group))

_SPREAD = (
    "insert into teams (id, name) select 'team-' || n, 'team ' || n from generate_series(0, 49) n",
    "insert into api_keys (id, team_id, name, role, prefix, sha256) "
    "select 'key-' || n, 'team-' || n % 50, 'person ' || n, 'member', 'thaw_', n "
    "from generate_series(0, 499) n",
    "update jobs set created_by = 'key-' || substring(id, 11)::int % 500, "
    "team_id = 'team-' || substring(id, 11)::int % 50 where id like 'ftjob-old-%'",
    "update allocations set slots = array_fill(0, array[1 + substring(id, 11)::int % 8]), "
    "ended_at = clock_timestamp() - interval '30 days' * substring(id, 11)::int / 100000.0 "
    "where id like 'alloc-old-%'",
    "update allocations set claimed_at = ended_at - interval '10 hours' * random() "
    "where id like 'alloc-old-%'",
    "update attempts set outcome = 'lost' where substring(id, 13)::int % 100 = 0 and id like 'attempt-old-%'",
)


def main() -> None:
    load = os.getloadavg()[0]
    with bench() as ground:
        engine = make_engine(ground.house.env["THAW_DATABASE_URL"], statement_timeout_s=120)
        furnish(engine, FINISHED)
        _spread(engine)
        rows = [_measured(engine, span, groups) for span in SPANS for groups in GROUPS]
        engine.dispose()
    RESULTS.parent.mkdir(exist_ok=True)
    result = {"unit": "ms", "finished_jobs": FINISHED, "load_at_start": load, "queries": rows}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    _show(rows, load)


def _spread(engine: Engine) -> None:
    with transaction(engine) as session:
        for statement in _SPREAD:
            session.execute(text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze"))


def _measured(engine: Engine, span: str, groups: tuple[Group, ...]) -> dict[str, Any]:
    taken, n_rows = [], 0
    for _ in range(ROUNDS):
        with transaction(engine) as session:
            current = now(session)
            window = Window(current - timedelta(days=SPANS[span]), current)
            began = time.perf_counter()
            n_rows = len(used(session, window, groups, team_id=None, now=current))
            taken.append((time.perf_counter() - began) * 1000)
    by = ", ".join(groups) or "nothing"
    return {"span": span, "by": by, "rows": n_rows, "median": median(taken), "worst": max(taken)}


def _show(rows: list[dict[str, Any]], load: float) -> None:
    table = Table("span", "by", "rows", "median ms", "worst ms", box=None)
    for row in rows:
        figures = (f"{row['rows']:,}", f"{row['median']:.1f}", f"{row['worst']:.1f}")
        table.add_row(row["span"], row["by"], *figures)
    console = Console()
    console.print(table)
    console.print(f"{FINISHED:,} finished jobs; load when it began: {load:.1f}")


if __name__ == "__main__":
    main()
