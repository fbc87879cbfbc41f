"""A proof of the promise for sceptics: faults on a real stack, and a row of the table. 1 when it was broken.

Without --scenario the faults are drawn from the seed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from harness import table
from harness.disks import in_own_mounts
from harness.plan import make_plan
from harness.scenarios import SCENARIOS
from harness.stage import Order, Report, Stage, standing
from harness.teams import teams_of
from harness.workload import variety

_STEP_S = 0.04


def main() -> int:
    arguments = _parse()
    in_own_mounts()
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="thaw-chaos-"))
    with standing(root, _say, scale=arguments.scale, step_s=_STEP_S) as stage:
        if arguments.scenario:
            held = [_play(stage, name) for name in arguments.scenario]
        else:
            held = [_draw(stage, arguments)]
    if all(held) and arguments.keep is None:
        shutil.rmtree(root, ignore_errors=True)
    else:
        _say(f"logs and witnesses: {root}")
    return 0 if all(held) else 1


def _draw(stage: Stage, asked: argparse.Namespace) -> bool:
    plan = make_plan(asked.seed, asked.faults, every_s=asked.every)
    for fault in plan:
        _say(str(fault))
    n_late = asked.jobs // 3
    order = Order(
        [variety(number) for number in range(asked.jobs)],
        asked.epochs,
        n_late=n_late,
        limit_s=asked.limit,
        teams=teams_of(asked.jobs, n_late=n_late),
    )
    return _told(f"seed {asked.seed}", stage.act(order, plan), [])


def _play(stage: Stage, name: str) -> bool:
    scenario = SCENARIOS[name]
    report = stage.act(scenario.order(stage.scale, _STEP_S), scenario.plan())
    return _told(name, report, scenario.also(report), may_overlap=scenario.may_overlap)


def _told(name: str, report: Report, besides: list[str], *, may_overlap: bool = False) -> bool:
    parts = [table.HEADING, table.row(name, report), "", table.faults(report), table.recoveries(report)]
    if report.order.teams:
        parts.append(table.quotas(report))
    sys.stdout.write("\n".join([*parts, str(report.verdict), *besides]) + "\n\n")
    sys.stdout.flush()
    return report.verdict.holds(may_overlap=may_overlap) and not besides


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the plan of faults")
    parser.add_argument("--scale", type=float, default=0.15, help="lease times are multiplied by this")
    parser.add_argument("--every", type=float, default=25.0, help="seconds between faults, at scale 1")
    parser.add_argument(
        "--epochs", type=int, default=20, help="of each job; one takes half a second at least"
    )
    parser.add_argument("--limit", type=float, default=600.0, help="seconds in which the jobs must be over")
    parser.add_argument("--keep", type=Path, help="an empty folder for all logs; else removed when all held")
    parser.add_argument(
        "--scenario", action="append", choices=list(SCENARIOS), help="instead of a seed; may be repeated"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
