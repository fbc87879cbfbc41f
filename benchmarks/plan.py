"""How long a plan takes over HTTP, authentication and database included, on one API process.

Cold is a (model, spec) that the process has never planned: the first request of a fresh process, which has
read nothing of the catalogue yet, and many different specs one after another. Warm is the same request again.
The models are those of the catalogue with the most modules and with the most parameters. One client, one
request at a time: the figures are latencies, not throughput. A second table has the parts without HTTP.

Wanted is a p99 below 100 ms cold and below 10 ms warm, on an idle machine; on a busy one look at the median
and the least. Writes benchmarks/results/plan.json. Run it with `make bench`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
from _api import Bench, bench
from _pure import parts_of
from rich.console import Console
from rich.table import Table

from shared import catalog
from shared.catalog import CatalogModel

RESULTS = Path(__file__).parent / "results" / "plan.json"
PLAN = "/v1/fine_tuning/plan"
FRESH_PROCESSES = 8
SPECS_OF_A_KIND = 100
WARM_REQUESTS = 1_000
WANTED_P99_MS = {"cold": 100, "warm": 10}


def main() -> None:
    models = largest_models()
    with bench() as ground:
        first = {model.name: list(first_requests(ground, model)) for model in models}
        with ground.api() as client:
            rows = [row for model in models for row in measured(client, model, first[model.name])]
    pure = [{"model": model.name, **parts_of(model, "backbone")} for model in models]
    result = {"unit": "ms", "wanted_p99": WANTED_P99_MS, "over_http": rows, "parts": pure}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    show(rows, pure)


def largest_models() -> list[CatalogModel]:
    """The one with the most modules, and the one with the most parameters."""
    known = [catalog.get(name) for name in catalog.names()]
    most_modules = max(known, key=lambda model: len(model.tree.modules))
    most_parameters = max(known, key=lambda model: sum(model.tree.n_elements.values()))
    return [most_modules, most_parameters]


def first_requests(ground: Bench, model: CatalogModel) -> Iterator[float]:
    """The first plan of each of some fresh processes."""
    for _ in range(FRESH_PROCESSES):
        with ground.api() as client:
            yield asked(client, model, "backbone")


def measured(client: httpx.Client, model: CatalogModel, first: Sequence[float]) -> Iterator[dict[str, Any]]:
    """A row for each kind of spec: cold, each spec once; warm, one of them again and again."""
    yield row(model, "backbone, first of a process", "cold", first)
    asked(client, model, "backbone")
    yield row(model, "backbone", "warm", [asked(client, model, "backbone") for _ in range(WARM_REQUESTS)])
    for kind, spec in KINDS.items():
        specs = [spec(model, number) for number in range(SPECS_OF_A_KIND)]
        yield row(model, kind, "cold", [asked(client, model, freeze) for freeze in specs])
        again = [asked(client, model, specs[-1]) for _ in range(WARM_REQUESTS)]
        yield row(model, kind, "warm", again)


def one_block(model: CatalogModel, number: int) -> Any:
    """The head and one block train, at a rate that no other spec of these has."""
    block = model.tree.blocks[number % len(model.tree.blocks)]
    return {"rules": [{"freeze": "**"}, {"train": ["@head", block], "lr_scale": (1 + number) / 1000}]}


def schedule(model: CatalogModel, number: int) -> Any:
    """The head alone, then the last blocks, then all."""
    return {
        "rules": [{"freeze": "**"}, {"train": "@head"}],
        "schedule": [
            {"at_epoch": 1, "train": f"last:{1 + number % len(model.tree.blocks)}"},
            {"at_epoch": 2, "train": "**", "lr_scale": (1 + number) / 1000},
        ],
    }


def patterns(model: CatalogModel, number: int) -> Any:
    """An expression, a glob and a class, with a rate that falls with the depth."""
    rules = [{"freeze": r"re:\.weight$"}, {"train": ["**.bias", "@head"]}, {"train": "type:BatchNorm2d"}]
    known = {module.class_name for module in model.tree.modules}
    return {"rules": rules if "BatchNorm2d" in known else rules[:2], "layer_decay": 0.5 + number / 1000}


KINDS: dict[str, Callable[[CatalogModel, int], Any]] = {
    "a block": one_block,
    "a schedule": schedule,
    "patterns": patterns,
}


def asked(client: httpx.Client, model: CatalogModel, freeze: Any) -> float:
    """Milliseconds from the request to the whole answer."""
    body = {"model": model.name, "weights": "none", "freeze": freeze}
    began = time.perf_counter()
    answer = client.post(PLAN, json=body)
    took = (time.perf_counter() - began) * 1000
    answer.raise_for_status()
    return took


def row(model: CatalogModel, spec: str, state: str, times: Sequence[float]) -> dict[str, Any]:
    p99 = quantiles(times, n=100, method="inclusive")[98]
    figures = {"n": len(times), "least": min(times), "p50": median(times), "p99": p99, "most": max(times)}
    return {"model": model.name, "spec": spec, "state": state, **figures}


def show(rows: Sequence[dict[str, Any]], pure: Sequence[dict[str, Any]]) -> None:
    console = Console()
    table = Table(*rows[0], title="milliseconds a plan, over HTTP")
    for found in rows:
        table.add_row(
            *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in found.values())
        )
    console.print(table)
    parts = Table(*pure[0], title="milliseconds, its parts without HTTP")
    for found in pure:
        parts.add_row(
            *(f"{value:.2f}" if isinstance(value, float) else str(value) for value in found.values())
        )
    console.print(parts)
    for state, limit in WANTED_P99_MS.items():
        worst = max(found["p99"] for found in rows if found["state"] == state)
        console.print(f"{state}: the worst p99 is {worst:.1f} ms, wanted is less than {limit} ms")


if __name__ == "__main__":
    main()
