"""How long the pure part of a plan takes: reading the catalogue's tree, and resolving a freeze spec on it.

Each model in a fresh state (cold: nothing of it read yet) and again (warm). Prints a table of the slowest and
writes benchmarks/results/plan.json. Run it with `make bench`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from shared.catalog import get, names
from shared.domain.freeze import parse_freeze, resolve

RESULTS = Path(__file__).parent / "results" / "plan.json"
SPECS: dict[str, object] = {
    "backbone": "backbone",
    "name": {"rules": [{"freeze": "name:weight"}, {"train": "@head"}]},
    "glob": {"rules": [{"freeze": "**"}, {"train": ["**.bias", "@head"]}]},
}
REPEATS = 5
SHOWN = 8


def main() -> None:
    rows = sorted((measured(name) for name in names()), key=lambda row: -row["cold_ms"])
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"unit": "ms", "models": rows}, indent=1) + "\n")
    columns = ("model", "modules", "cold", *(f"warm: {spec}" for spec in SPECS))
    table = Table(*columns, title="milliseconds a plan")
    for row in rows[:SHOWN]:
        warm = (f"{row['warm_ms'][spec]:.2f}" for spec in SPECS)
        table.add_row(row["model"], str(row["modules"]), f"{row['cold_ms']:.2f}", *warm)
    console = Console()
    console.print(table)
    console.print(f"{len(rows)} models, the {SHOWN} slowest shown; {RESULTS.name} has all")


def measured(name: str) -> dict[str, object]:
    """Figures of one model: cold once, warm as the best of a few."""
    cold_ms = milliseconds(lambda: resolve(parse_freeze("backbone"), get(name).tree))
    tree = get(name).tree
    warm_ms = {
        label: min(milliseconds(lambda spec=spec: resolve(parse_freeze(spec), tree)) for _ in range(REPEATS))
        for label, spec in SPECS.items()
    }
    return {"model": name, "modules": len(tree.modules), "cold_ms": cold_ms, "warm_ms": warm_ms}


def milliseconds(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    main()
