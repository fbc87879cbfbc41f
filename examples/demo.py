"""The three classic ways of freezing, on real data, on a real stack: what `make demo` runs.

It starts `thaw up`, uploads scikit-learn's handwritten digits, submits five fine-tuning jobs over HTTP, shows
them live, and leaves the artifacts in .thaw/demo and a summary in demo-result.json.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from board import follow_all
from digits import count, write_data_sets
from report import Outcome, bring_home, print_tables, write_json
from rich.console import Console
from stack import StackFailed, running_stack

from thaw.client import Thaw
from thaw.errors import ThawError

ARTIFACTS = Path(".thaw/demo")
SUMMARY = Path("demo-result.json")
SLOTS = 2
REGISTERED = {"custom_network", "nested_network"}
BASE, TRANSFER, UNTRAINED = "base", "even-odd-transfer", "even-odd-untrained"
# What the held-out scans say is only true where they did not pick the epoch.
LAST = {"keep": "last"}
Spec = dict[str, Any]


def main() -> int:
    """0 when every job succeeded and its frozen part is unchanged."""
    # A log has no width of its own; the tables need this much.
    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False, markup=False)
    scratch = Path(tempfile.mkdtemp(prefix="thaw-demo-"))
    began = time.monotonic()
    try:
        outcomes = on_a_stack(scratch, console)
    except KeyboardInterrupt:
        console.print("Interrupted; the stack is stopped.")
        shutil.rmtree(scratch)
        return 130
    except (StackFailed, ThawError) as error:
        console.print(f"The demo could not go on: {error}\nThe stack's logs: {scratch / 'stack' / 'logs'}")
        return 1
    print_tables(outcomes, console)
    write_json(outcomes, SUMMARY)
    console.print(f"{SUMMARY} holds the same. {time.monotonic() - began:.0f} s in all.")
    if not all(outcome.is_good for outcome in outcomes):
        console.print(f"Not every job succeeded. The stack's logs: {scratch / 'stack' / 'logs'}")
        return 1
    shutil.rmtree(scratch)
    console.print(what_transfer_brought(outcomes), soft_wrap=True)
    return 0


def on_a_stack(scratch: Path, console: Console) -> list[Outcome]:
    """All of the demo that needs the stack, which is stopped at the end."""
    console.print(
        f"Starting Postgres, Redis, the API, the scheduler and one worker with {SLOTS} CPU slots ..."
    )
    with running_stack(scratch / "stack", SLOTS) as stack, Thaw(stack.url, stack.api_key) as thaw:
        console.print(f"Ready at {stack.url}")
        return run(thaw, scratch, console)


def run(thaw: Thaw, scratch: Path, console: Console) -> list[Outcome]:
    """Upload, submit, follow, download."""
    data = write_data_sets(scratch / "data")
    counts = (count(folder) for folder in (data.digits, data.few, data.rest))
    console.print("{} scans for the base, {} labelled even or odd, {} left to test on".format(*counts))
    files = {name: thaw.files.upload(folder).id for name, folder in data.by_name().items()}
    wait_for_models(thaw, REGISTERED)
    ids: dict[str, str] = {}
    for name, spec in jobs(files).items():
        model = ids.get(spec["model"], spec["model"])
        ids[name] = thaw.jobs.create({**spec, "model": model}).id
        console.print(f"Submitted {name} as {ids[name]}")
    ended = follow_all(thaw, ids, console)
    shutil.rmtree(ARTIFACTS, ignore_errors=True)
    return [bring_home(thaw, name, job, ARTIFACTS / name) for name, job in ended.items()]


def jobs(files: Mapping[str, str]) -> dict[str, Spec]:
    """The bodies of the five jobs. A model named like another job means that job's result.

    The first three take one slot each, so that two of them always run side by side.
    """
    ten_digits = {"training_file": files["digits"], "validation_file": files["rest"]}
    even_odd = {"training_file": files["few"], "validation_file": files["rest_even_odd"]}
    only_the_head = {
        **even_odd,
        "head": {"num_classes": 2},
        "freeze": "backbone",
        "hyperparameters": {"n_epochs": 10, "batch_size": 10, "learning_rate": 0.01, **LAST},
        "preprocessing": {"image_size": 32},
    }
    on_both_slots = {"resources": {"devices_per_node": 2}}
    return {
        BASE: {
            "model": "resnet18",
            "weights": "none",
            **ten_digits,
            "head": {"num_classes": 10},
            "hyperparameters": {"n_epochs": 5, "batch_size": 50, "learning_rate": 0.001, **LAST},
            "preprocessing": {"image_size": 32},
        },
        "frozen-by-name": {
            "model": "custom_network",
            "weights": "none",
            **ten_digits,
            "freeze": {"rules": [{"freeze": ["name:conv1", "name:conv2"]}]},
            "hyperparameters": {"n_epochs": 8, "batch_size": 50, "learning_rate": 0.001, **LAST},
            "preprocessing": {"image_size": 14},
        },
        UNTRAINED: {"model": "resnet18", "weights": "none", **only_the_head},
        "frozen-submodule": {
            "model": "nested_network",
            "weights": "none",
            **ten_digits,
            "freeze": ["encoder"],
            "hyperparameters": {"n_epochs": 8, "batch_size": 50, "learning_rate": 0.003, **LAST},
            "preprocessing": {"image_size": [24, 40]},
            **on_both_slots,
        },
        TRANSFER: {"model": BASE, "wait_for_model": True, **only_the_head, **on_both_slots},
    }


def wait_for_models(thaw: Thaw, wanted: set[str], limit_s: float = 60.0) -> None:
    """Until the worker has said that it offers these. Raises ThawError when it does not."""
    ends_at = time.monotonic() + limit_s
    while missing := wanted - {model["id"] for model in thaw.models.list()}:
        if time.monotonic() > ends_at:
            raise ThawError(
                f"no node offers {', '.join(sorted(missing))}; install examples/registered_models"
            )
        time.sleep(0.5)


def what_transfer_brought(outcomes: list[Outcome]) -> str:
    """The comparison of the two jobs that differ in their backbone alone."""
    accuracy = {outcome.name: outcome.accuracy or 0.0 for outcome in outcomes}
    return (
        "What transfer brought: with the same 60 labels and only the head trained, even or odd is told"
        f" right for {accuracy[TRANSFER]:.1%} of the unseen scans on the base job's backbone,"
        f" and for {accuracy[UNTRAINED]:.1%} on an untrained one."
    )


if __name__ == "__main__":
    sys.exit(main())
