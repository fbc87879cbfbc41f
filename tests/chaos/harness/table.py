"""Reports as rows of the tables in docs/reliability.md."""

from __future__ import annotations

from collections import Counter

from harness.recovery import Recovery, percentile
from harness.stage import Report

HEADING = (
    "| run | jobs | faults | attempts lost | jobs lost | done twice | overlapping | otherwise wrong "
    "| recovery p50 / p99 | s |\n|---|---|---|---|---|---|---|---|---|---|"
)


def row(name: str, report: Report) -> str:
    """One line; recovery is at default lease times."""
    verdict = report.verdict
    times = [one.at_default_leases(report.scale) for one in report.recoveries]
    middle, most = percentile(times, 0.5), percentile(times, 0.99)
    cells = [
        name,
        len(report.ended),
        len(report.injected),
        report.attempts["lost"],
        *(len(found) for found in (verdict.lost, verdict.doubled, verdict.overlapping, verdict.wrong)),
        "-" if middle is None or most is None else f"{middle:.0f} / {most:.0f} s",
        f"{report.seconds:.0f}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


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
    ordered = sorted(report.recoveries, key=lambda one: -one.at_default_leases(report.scale))
    return "\n".join(_in_parts(one, report.scale) for one in ordered)


def _in_parts(one: Recovery, scale: float) -> str:
    return (
        f"recovered: {one.at_default_leases(scale):6.1f} s at default leases: {one.noticing:.1f} s until "
        f"taken again, {one.starting:.1f} s to its next step ({one.queued:.1f} s without a slot): {one.fault}"
    )


def _listed(counted: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counted.items())) or "none"
