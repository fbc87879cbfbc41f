"""Usage over HTTP: by whom, what and when, each team its own, and what cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from api_house import ApiHouse, api_on, refused
from dispatch_rows import World
from sqlalchemy import update

from shared.db.engine import transaction
from shared.db.models import Allocation
from shared.domain.job import Outcome
from shared.settings import Settings

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def one_hour_of(api: ApiHouse, job: dict[str, Any]) -> None:
    """Let the job hold both slots of a node from 23:30 to 0:30."""
    world = World(api.engine)
    world.node()
    claimed = world.claim(world.offer(job["id"], slots=(0, 1)))
    assert claimed is not None
    assert world.finish(claimed, Outcome.FAILED)
    with transaction(api.engine) as session:
        session.execute(
            update(Allocation)
            .where(Allocation.id == claimed.allocation_id)
            .values(claimed_at=MIDNIGHT - HOUR / 2, ended_at=MIDNIGHT + HOUR / 2)
        )


AROUND = {"start": int(MIDNIGHT.timestamp()) - 86400, "end": int(MIDNIGHT.timestamp()) + 86400}


def test_usage_tells_by_whom_what_and_when(api: ApiHouse) -> None:
    file = api.data_set("a", "b")
    job = api.job(training_file=file, resources={"devices_per_node": 2})
    one_hour_of(api, job)
    assert api.client.get("/v1/usage").json()["data"] == [], "of the last 30 days"
    answer = api.client.get("/v1/usage", params=AROUND).json()
    assert (answer["object"], answer["start"], answer["end"]) == ("usage", *AROUND.values())
    (row,) = answer["data"]
    told = {"accelerator": "cpu", "slot_hours": 2.0, "wasted_slot_hours": 2.0, "n_jobs": 1, "n_attempts": 1}
    assert row == {**dict.fromkeys(("team", "person", "model", "day")), **told}
    groups = ["day", "team", "person", "model"]
    rows = api.client.get("/v1/usage", params={**AROUND, "group_by": groups}).json()["data"]
    assert [(row["day"], row["slot_hours"]) for row in rows] == [("2026-02-28", 1.0), ("2026-03-01", 1.0)]
    assert rows[0]["team"] == {"id": job["organization_id"], "name": "default"}
    assert rows[0]["person"]["name"] == "bootstrap"
    assert rows[0]["model"] == "resnet18"


def test_a_deleted_job_has_still_held_what_it_held(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"), resources={"devices_per_node": 2})
    one_hour_of(api, job)
    assert api.client.delete(f"/v1/fine_tuning/jobs/{job['id']}").status_code == 200
    assert api.client.get("/v1/usage", params=AROUND).json()["data"][0]["slot_hours"] == 2.0


def test_a_team_sees_itself_and_an_admin_all_or_the_one_that_is_named(api: ApiHouse) -> None:
    job = api.job(training_file=api.data_set("a", "b"), resources={"devices_per_node": 2})
    one_hour_of(api, job)
    theirs = api.other_team()

    def of(headers: dict[str, str] | None = None, **params: str) -> list[Any]:
        answer = api.client.get("/v1/usage", params={**AROUND, **params}, headers=headers)
        assert answer.status_code == 200, answer.text
        found: list[Any] = answer.json()["data"]
        return found

    assert len(of()) == len(of(team="default")) == len(of(team=job["organization_id"])) == 1
    assert len(of(api.viewer())) == 1
    assert of(team="others") == of(theirs) == of(theirs, team="others") == []
    unknown = api.client.get("/v1/usage", params={"team": "nobody"}, headers=theirs)
    foreign = api.client.get("/v1/usage", params={"team": "default"}, headers=theirs)
    assert unknown.text.replace("nobody", "default") == foreign.text
    refused(foreign, 404, "team", "no team 'default'")
    refused(api.client.get("/v1/usage", params={"team": "default", "x": 1}), 422, "x", "group_by")


def test_what_cannot_be_meant_is_refused(api: ApiHouse) -> None:
    def ask(**params: Any) -> Any:
        return api.client.get("/v1/usage", params=params)

    refused(ask(group_by="week"), 422, "group_by.0", "'day'", "'week'")
    refused(ask(group_by=["day", "day"]), 422, "group_by", "twice")
    refused(ask(start=10, end=10), 422, "start", "before the end")
    refused(ask(start=0, group_by="day"), 422, "start", "400 days")
    refused(ask(start="yesterday"), 422, "start", "integer")
    refused(ask(team="\0"), 404, "team")
