"""Reports as rows of the tables in docs/reliability.md."""

from __future__ import annotations

from collections import Counter

from harness.recovery import Recovery, percentile
from harness.stage import Report

HEADING = (
    "| run | time scale | jobs | faults | attempts lost | jobs lost | done twice | overlapping | over quota "
    "| otherwise wrong | recovery p50 / p99 | seconds |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, report: Report) -> str:
    """One line; recovery is at the run's time scale. Over quota is none where no team had one."""
    verdict = report.verdict
    times = [one.seconds for one in report.recoveries]
    middle, most = percentile(times, 0.5), percentile(times, 0.99)
    cells = [
        name,
        f"{report.scale:g}",
        len(report.ended),
        len(report.injected),
        report.attempts["lost"],
        *(len(found) for found in (verdict.lost, verdict.doubled, verdict.overlapping)),
        len(verdict.over_quota) if report.order.teams else "-",
        len(verdict.wrong),
        "-" if middle is None or most is None else f"{middle:.0f} / {most:.0f} s",
        f"{report.seconds:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def quotas(report: Report) -> str:
    """How often it was looked at what teams held, and how often something was taken back."""
    return f"{report.looks}; {report.preempted} times a job was asked to hand back what it had borrowed"


def faults(report: Report) -> str:
    """How many of each kind were injected, and which found nothing to hit."""
    done = Counter(one.fault.kind.name for one in report.injected)
    missed = Counter(one.fault.kind.name for one in report.faults if one.injection is None)
    lines = ["injected: " + _listed(done)]
    if missed:
        lines.append("not injected, as there was nothing to hit: " + _listed(missed))
    return "\n".join(lines)


def recoveries(report: Report) -> str:
    """Each recovery in its parts, the longest first."""
    ordered = sorted(report.recoveries, key=lambda one: -one.seconds)
    return "\n".join(_in_parts(one) for one in ordered)


def _in_parts(one: Recovery) -> str:
    return (
        f"recovered in {one.seconds:.1f} s: {one.noticing:.1f} s until taken again, {one.starting:.1f} s to "
        f"the next step (and {one.waiting:.1f} s without a free slot, Postgres or store): {one.fault}"
    )


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counted.items())) or "none"
