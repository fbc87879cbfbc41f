"""Why a job failed, for people: what, where, what would help, and the end of the traceback."""

from __future__ import annotations

from collections.abc import Iterator

from thaw.shapes import Job

# Of the traceback's end: more would push what was wrong off the screen, and --json shows all of it.
_LINES = 15


def failure_facts(job: Job) -> Iterator[tuple[str, str]]:
    """The facts of `thaw show`; none for a job that did not fail."""
    error = job.error
    if not error:
        return
    yield "error", str(error["message"])
    yield "code", " in ".join(part for part in (str(error["code"]), _where(job)) if part)
    if error.get("hint"):
        yield "hint", str(error["hint"])
    if lines := _traceback(job):
        yield "traceback", "\n".join(("", *lines))


def last_words(job: Job) -> Iterator[str]:
    """What `thaw watch` ends with, where the job did not succeed: the last line says it all."""
    yield from _traceback(job)
    where = f" ({', '.join(filter(None, (str(job.error['code']), _where(job))))})" if job.error else ""
    yield f"{job.id} {job.status}{where}" + (f": {job.why_failed}" if job.why_failed else "")


def _where(job: Job) -> str:
    """The rank, the node and the try, as far as they are known."""
    parts = (("rank ", "rank"), ("", "node"), ("try ", "attempt"))
    return ", ".join(f"{name}{job.error[key]}" for name, key in parts if job.error.get(key) is not None)


def _traceback(job: Job) -> list[str]:
    lines = str(job.error.get("traceback") or "").rstrip().splitlines()
    return lines[-_LINES:]
