"""Jobs that are over and uploads go once their team keeps them no longer; what is needed stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused
from sqlalchemy import func, select, update

from scheduler.loop import Scheduler
from scheduler.reconciling import delete_what_is_due
from shared.db import keeping
from shared.db.clock import seconds_ago
from shared.db.engine import transaction
from shared.db.models import Event, File, Job
from shared.db.steps import run_step
from shared.domain.job import JobState
from shared.domain.keeping import DAY_S
from shared.queue import make_app
from shared.settings import Settings

SUCCEEDED = (JobState.DISPATCHED, JobState.RUNNING, JobState.SUCCEEDED)
QUOTA = "/v1/teams/default/quota"


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def keep(api: ApiHouse, **limits: int | None) -> None:
    assert api.client.put(QUOTA, json={"limits": limits}).status_code == 200


def aged(api: ApiHouse, job: str, days: float) -> None:
    """It was over so long ago."""
    with transaction(api.engine) as session:
        session.execute(update(Job).where(Job.id == job).values(finished_at=seconds_ago(days * DAY_S)))


def aged_file(api: ApiHouse, file: str, days: float) -> None:
    with transaction(api.engine) as session:
        session.execute(update(File).where(File.id == file).values(created_at=seconds_ago(days * DAY_S)))


def over(api: ApiHouse, days: float, **body: Any) -> str:
    job = str(api.job(**body)["id"])
    api.move(job, *SUCCEEDED)
    aged(api, job, days)
    return job


def listed(api: ApiHouse, path: str = JOBS) -> set[str]:
    return {one["id"] for one in api.client.get(path).json()["data"]}


def test_without_a_limit_everything_is_kept(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    aged_file(api, file, 10_000)
    job = over(api, 9_000, training_file=file)
    delete_what_is_due(api.engine)
    assert (listed(api), listed(api, "/v1/files")) == ({job}, {file})


def test_jobs_go_so_long_after_they_were_over(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    old, young, waiting = (
        over(api, 31, training_file=file),
        over(api, 29, training_file=file),
        api.job(training_file=file)["id"],
    )
    with transaction(api.engine) as session:
        session.execute(update(Job).where(Job.id == waiting).values(created_at=seconds_ago(99 * DAY_S)))
    keep(api, keep_jobs_days=30)
    Scheduler(api.engine, make_app(api.settings.redis_url.get_secret_value()), api.settings).step()

    assert listed(api) == {young, waiting}
    refused(api.client.get(f"{JOBS}/{old}"), 404, None, old)
    with transaction(api.engine) as session:
        newest = select(Event).where(Event.job_id == old).order_by(Event.seq.desc()).limit(1)
        last = session.scalars(newest).one()
    assert (last.actor, last.data) == ("reconciler", {"code": "deleted"})
    assert "for 30 days" in last.message
    assert listed(api, "/v1/files") == {file}, "files are kept by a limit of their own"


def test_a_result_that_is_needed_stays_and_counts_from_when_it_last_was(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    base, base_of_old = over(api, 50, training_file=file), over(api, 50, training_file=file)
    user = api.job(model=base, weights=None, training_file=file)["id"]
    old_user = over(api, 40, model=base_of_old, weights=None, training_file=file)
    keep(api, keep_jobs_days=30)
    delete_what_is_due(api.engine)
    assert listed(api) == {base, user}, old_user

    api.move(user, *SUCCEEDED)
    aged(api, user, 10)
    delete_what_is_due(api.engine)
    assert listed(api) == {base, user}
    aged(api, user, 31)
    delete_what_is_due(api.engine)
    assert listed(api) == set()


def test_files_go_so_long_after_they_were_last_read(api: ApiHouse) -> None:
    unused, young, read, being_read = (api.data_set("a", "b", samples=n) for n in (3, 4, 5, 6))
    for file in (unused, read, being_read):
        aged_file(api, file, 60)
    over(api, 10, training_file=read)
    job = api.job(training_file=unused, validation_file=being_read)["id"]
    api.move(job, *SUCCEEDED)
    aged(api, job, 31)
    waiting = api.job(training_file=young, validation_file=being_read)["id"]
    keep(api, keep_files_days=30)
    delete_what_is_due(api.engine)
    assert listed(api, "/v1/files") == {young, read, being_read}
    assert job in listed(api)

    api.client.post(f"{JOBS}/{waiting}/cancel")
    aged(api, waiting, 31)
    delete_what_is_due(api.engine)
    assert listed(api, "/v1/files") == {young, read}


def test_another_team_s_limit_is_not_ours_and_many_go_in_batches(
    api: ApiHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "BATCH", 2)
    file = api.data_set("a", "b")
    needed = [over(api, 90, training_file=file) for _ in range(3)]
    for base in needed:
        api.job(model=base, weights=None, training_file=file)
    old = {over(api, 40 + n, training_file=file) for n in range(3)}
    api.client.post("/v1/teams", json={"name": "other"})
    asked = {"limits": {"keep_jobs_days": 1, "keep_files_days": 1}}
    assert api.client.put("/v1/teams/other/quota", json=asked).status_code == 200
    delete_what_is_due(api.engine)
    assert listed(api) >= old

    keep(api, keep_jobs_days=30)
    for left in (1, 0):
        delete_what_is_due(api.engine)
        assert len(listed(api) & old) == left, "what is needed holds up nothing that is due"
    assert set(needed) <= listed(api)


def test_what_has_become_needed_since_it_was_found_stays(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    job = over(api, 31, training_file=file)
    keep(api, keep_jobs_days=30)
    assert list(run_step(api.engine, keeping.due_jobs)) == [job]
    api.job(model=job, weights=None, training_file=file)
    assert not run_step(api.engine, keeping.delete_job_if_due, job, actor="test")
    assert job in listed(api)
    with transaction(api.engine) as session:
        assert session.scalar(select(func.count()).where(Event.message.contains("keeps"))) == 0
