"""The commands that read one job, or list them."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from thaw.cli.extract import extraction_facts
from thaw.cli.failure import failure_facts
from thaw.cli.output import Json, as_json, screen, table, when
from thaw.cli.plan_tree import counts
from thaw.cli.queue import start_in_words
from thaw.cli.session import server
from thaw.cli.watch import JobId
from thaw.figures import Figures, clock
from thaw.kinds import Kind, kind_of
from thaw.shapes import Job


def list_jobs(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    kind: Annotated[Kind, typer.Option(help="Jobs of which kind.")] = Kind.FINE_TUNING,
    json: Json = False,
) -> None:
    """The team's jobs of one kind, the newest first."""
    with server(ctx) as thaw:
        found = thaw.jobs.list(kind)
        jobs = [job for job, _ in zip(found, range(limit), strict=False)]
    if json:
        as_json([dict(job.raw) for job in jobs])
        return
    told = "held out" if kind is Kind.FINE_TUNING else "samples"
    rows = ((job.id, job.model, job.phase, _figure(job), when(job.raw.get("created_at"))) for job in jobs)
    table(("id", "model", "state", told, "created"), rows)


def show(ctx: typer.Context, job_id: JobId, json: Json = False) -> None:
    """One job: its state, figures, frozen part, and its error."""
    with server(ctx) as thaw:
        job = thaw.jobs.get(job_id)
    if json:
        as_json(dict(job.raw))
        return
    console = screen()
    for name, value in _facts(job):
        console.print(f"{name:<14} {value}")


def remove(ctx: typer.Context, job_id: JobId) -> None:
    """Remove a job that is over, and everything it has left."""
    with server(ctx) as thaw:
        thaw.jobs.delete(job_id)


def logs(
    ctx: typer.Context,
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
) -> None:
    """What the job's trainer wrote."""
    with server(ctx) as thaw:
        for piece in thaw.jobs.follow_logs(job_id) if follow else thaw.jobs.logs(job_id):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def metrics(ctx: typer.Context, job_id: JobId, json: Json = False) -> None:
    """The training and validation figures, the oldest first."""
    with server(ctx) as thaw:
        found = list(thaw.jobs.metrics(job_id))
    if json:
        as_json(found)
        return
    names = list(dict.fromkeys(name for m in found for name in _figures(m["values"])))
    rows = (
        (m["kind"], m["epoch"] + 1, m["step"], *(_figures(m["values"]).get(name) for name in names))
        for m in found
    )
    columns = ("kind", "epoch", "step", *(name.replace("_", " ") for name in names))
    table(columns, rows, right=columns[1:])


def _figure(job: Job) -> str | None:
    """What tells most of a job in a word."""
    figures = Figures.of(job)
    if kind_of(job.id) is Kind.FINE_TUNING:
        return str(figures.held_out) if figures.held_out else None
    return None if figures.n_done is None else f"{figures.n_done:,} of {figures.n_samples:,}"


def _figures(values: Mapping[str, Any]) -> dict[str, str]:
    """The loss, then the task's own figures, the main one first."""
    main = values.get("main_metric")
    own = values.get("metrics") or {"accuracy": values.get("accuracy")}
    in_order = {
        "loss": values["loss"],
        **dict(sorted(own.items(), key=lambda item: (item[0] != main, item[0]))),
    }
    return {name: f"{value:.4f}" for name, value in in_order.items() if value is not None}


def _facts(job: Job) -> Iterator[tuple[str, str]]:
    yield "job", job.id
    yield "model", job.model
    yield "state", "  ".join(Figures.of(job).parts())
    if reason := job.raw.get("wait_reason"):
        yield "waits", str(reason)
    if place := job.raw.get("queue_position"):
        yield "queue", f"place {place}; starts {start_in_words(job.raw.get('estimated_start'))}, UTC"
    if job.phase == "paused":
        yield "paused", f"holds no slots; `thaw resume {job.id}` goes on from its last checkpoint"
    for share in _shares(job):
        slots = ", ".join(str(slot) for slot in share["slots"])
        yield "runs on", f"{share['node']}, slots {slots}"
    for change in job.raw.get("changes") or ():
        yield "changed", f"{change['field']} {change['old']} -> {change['new']}, {when(change['time'])} UTC"
    yield from extraction_facts(job) if kind_of(job.id) is Kind.FEATURE_EXTRACTION else _training_facts(job)
    yield "created", f"{when(job.raw['created_at'])} UTC"
    if finished := job.raw.get("finished_at"):
        yield "finished", f"{when(finished)} UTC"
    timings = job.raw["timings"].items()
    yield "time", ", ".join(f"{name} {clock(seconds)}" for name, seconds in timings if seconds is not None)
    yield from failure_facts(job)


def _shares(job: Job) -> list[Mapping[str, Any]]:
    """Each node's part of the try that goes on; none of a job that does not run."""
    return [
        share
        for attempt in job.raw.get("attempts") or ()
        for share in attempt.get("nodes") or ()
        if attempt["outcome"] is None
    ]


def _training_facts(job: Job) -> Iterator[tuple[str, str]]:
    for phase in job.raw["freeze_plan"]["phases"]:
        yield f"from epoch {phase['from_epoch'] + 1}", counts(phase["n_trainable"], phase["n_frozen"])
    yield from _proof(job.raw.get("result") or {})


def _proof(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if proof := result.get("frozen_proof"):
        same = "unchanged" if proof["before"] == proof["after"] else "CHANGED"
        yield "frozen part", f"{same}: {proof['n_parameters']} parameters, {proof['n_buffers']} buffers"
    if evaluation := result.get("evaluation"):
        own = ", ".join(f"{name.replace('_', ' ')} {figure}" for name, figure in _figures(evaluation).items())
        yield "held out", f"{own}, on {evaluation['n_samples']:,} samples"
