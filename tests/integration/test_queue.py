"""What a waiting job is told: its place among all that wait, and when it may start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, class_folders
from dispatch_rows import World
from sqlalchemy import update

from api.services.turns import Turns
from api.views import job_summary
from scheduler.placing import place_jobs
from shared.db.engine import transaction
from shared.db.models import Job, NodeRow, Slot, TeamQuota
from shared.db.past_usage import PastUsage
from shared.db.steps import run_step
from shared.domain.job import JobState, NodeState, Outcome, SlotState, StopReason
from shared.settings import Settings


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


@pytest.fixture
def world(api: ApiHouse) -> World:
    return World(api.engine)


def queue(api: ApiHouse, headers: dict[str, str] | None = None, **params: int) -> dict[str, Any]:
    answer = api.client.get("/v1/queue", headers=headers, params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def one(api: ApiHouse, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = api.client.get(f"{JOBS}/{job_id}").json()
    return found


def progress(api: ApiHouse, job_id: str, **line: Any) -> None:
    """The last line of training that the job's trainer has written."""
    told = {"time": time.time(), "step": 10, "total_steps": 100, **line}
    with transaction(api.engine) as session:
        session.execute(update(Job).where(Job.id == job_id).values(progress={"train": told}))


def running(api: ApiHouse, world: World, file: str, **body: Any) -> str:
    """A job that holds slot 0 of node-0."""
    job_id = str(api.job(training_file=file, **body)["id"])
    assert world.claim(world.offer(job_id)) is not None
    return job_id


def their_job(api: ApiHouse, headers: dict[str, str], **body: Any) -> str:
    upload = {"file": ("a.zip", class_folders("a", "b"))}
    file = api.client.post("/v1/files", files=upload, data={"purpose": "fine-tune"}, headers=headers)
    asked = {"model": "resnet18", "weights": "none", "training_file": file.json()["id"], **body}
    answer = api.client.post(JOBS, json=asked, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_a_start_is_told_from_what_the_running_job_says_of_itself(api: ApiHouse, world: World) -> None:
    world.node(slots=1)
    file = api.data_set("a", "b")
    busy = running(api, world, file)
    first = api.job(training_file=file, max_duration_s=600)["id"]
    second = api.job(training_file=file)["id"]
    before = int(time.time())
    start = one(api, first)["estimated_start"]
    assert before <= start.pop("earliest") <= time.time()
    assert start == {"likely": None, "latest": None}, "it has told nothing yet"

    progress(api, busy, eta_s=1000.0)
    found = queue(api)["data"]
    assert [(job["id"], job["queue_position"]) for job in found] == [(first, 1), (second, 2)]
    now = time.time()
    start = found[0]["estimated_start"]
    assert start["earliest"] == pytest.approx(now + 750, abs=30)
    assert start["likely"] == pytest.approx(now + 1010, abs=30)
    assert start["latest"] == pytest.approx(now + 1620, abs=30)
    behind = found[1]["estimated_start"]
    assert behind["earliest"] == pytest.approx(now + 750, abs=30)
    assert behind["likely"] is None, "nobody knows how long the first will run"
    assert behind["latest"] == pytest.approx(now + 1620 + 600 + 120, abs=30)
    shown = one(api, second)
    assert (shown["queue_position"], shown["estimated_start"]["likely"]) == (2, None)
    assert one(api, busy)["queue_position"] is None
    listed = api.client.get(JOBS).json()["data"]
    assert {job["queue_position"] for job in listed} == {None}, "not told in lists"


def test_what_a_running_job_may_at_most_is_a_bound_without_any_pace(api: ApiHouse, world: World) -> None:
    world.node(slots=1)
    file = api.data_set("a", "b")
    running(api, world, file, max_duration_s=300)
    start = one(api, api.job(training_file=file)["id"])["estimated_start"]
    assert start["likely"] is None
    assert start["latest"] == pytest.approx(time.time() + 420, abs=30)


def test_a_gang_is_told_when_the_last_of_its_nodes_comes_free_and_who_is_behind_waits_for_it(
    api: ApiHouse, world: World
) -> None:
    for name in ("node-0", "node-1"):
        world.node(name, slots=1)
    file = api.data_set("a", "b")
    running(api, world, file, max_duration_s=300)
    gang = one(api, api.job(training_file=file, resources={"nodes": 2}, max_duration_s=600)["id"])
    assert (gang["queue_position"], gang["estimated_start"]["likely"]) == (1, None)
    assert gang["estimated_start"]["latest"] == pytest.approx(time.time() + 420, abs=30)
    behind = one(api, api.job(training_file=file)["id"])
    assert behind["queue_position"] == 2
    assert behind["estimated_start"]["earliest"] <= time.time() + 1
    assert behind["estimated_start"]["latest"] == pytest.approx(time.time() + 420 + 720, abs=30)


def test_a_job_that_leaves_a_dirty_slot_and_a_drained_node_are_told_for_what_they_are(
    api: ApiHouse, world: World
) -> None:
    world.node(slots=1)
    file = api.data_set("a", "b")
    busy = running(api, world, file)
    waiting = api.job(training_file=file)["id"]
    world.stop(busy, StopReason.CANCEL)
    start = one(api, waiting)["estimated_start"]
    assert start["likely"] == pytest.approx(time.time() + 20, abs=15)
    assert start["latest"] == pytest.approx(time.time() + 150, abs=15)
    with transaction(api.engine) as session:
        session.execute(update(Slot).values(state=SlotState.DIRTY, allocation_id=None))
    assert one(api, waiting)["estimated_start"]["likely"] is None
    with transaction(api.engine) as session:
        session.execute(update(Slot).values(state=SlotState.FREE))
    assert one(api, waiting)["estimated_start"]["latest"] <= time.time()
    with transaction(api.engine) as session:
        session.execute(update(NodeRow).values(state=NodeState.SUSPECT))
    assert one(api, waiting)["estimated_start"]["likely"] is None
    assert queue(api)["slots"] == [
        {"accelerator": "cpu", "n_nodes": 1, "free": 0, "held": 0, "dirty": 0, "away": 1, "unhealthy": 0}
    ]


def test_a_job_for_which_there_is_no_node_has_a_place_and_no_start(api: ApiHouse, world: World) -> None:
    waiting = api.job(training_file=api.data_set("a", "b"), resources={"devices_per_node": 4})["id"]
    world.node(slots=2)
    shown = one(api, waiting)
    assert (shown["queue_position"], shown["estimated_start"]) == (1, None)


def test_a_team_sees_its_own_jobs_with_their_places_among_all(api: ApiHouse, world: World) -> None:
    world.node(slots=1)
    theirs = api.other_team()
    file = api.data_set("a", "b")
    mine = api.job(training_file=file)["id"]
    other = their_job(api, theirs, priority=3)
    last = api.job(training_file=file)["id"]
    seen = queue(api, theirs)
    assert [(job["id"], job["queue_position"]) for job in seen["data"]] == [(other, 2)], "teams take turns"
    assert (seen["n_waiting"], seen["has_more"]) == (3, False)
    assert mine not in str(seen)
    assert last not in str(seen)
    member = queue(api, api.viewer())
    assert [(job["id"], job["queue_position"]) for job in member["data"]] == [(mine, 1), (last, 3)]
    every = queue(api, limit=2)
    assert [job["id"] for job in every["data"]] == [mine, other], "an admin sees every team's"
    assert every["has_more"] is True
    assert queue(api, theirs)["data"][0]["organization_id"] != one(api, mine)["organization_id"]


def test_a_job_moves_up_the_queue_and_starts_when_it_was_said_to(
    api: ApiHouse, world: World, settings: Settings
) -> None:
    world.node(slots=1)
    file = api.data_set("a", "b")
    jobs = [api.job(training_file=file)["id"] for _ in range(3)]
    for started in range(3):
        waiting = [(job["id"], job["queue_position"]) for job in queue(api)["data"]]
        assert waiting == [(id, place) for place, id in enumerate(jobs[started:], start=1)]
        assert one(api, jobs[started])["estimated_start"]["latest"] <= time.time(), "the slot is free"
        (offer,) = run_step(api.engine, place_jobs, settings)
        claimed = world.claim(offer)
        assert claimed is not None
        assert claimed.job_id == jobs[started]
        run_step(api.engine, place_jobs, settings)
        assert one(api, claimed.job_id)["queue_position"] is None
        assert all("largest free block" in str(job["wait_reason"]) for job in queue(api)["data"][:1])
        assert world.finish(claimed, Outcome.SUCCEEDED, result={})
    assert queue(api)["data"] == []


def test_prometheus_reads_the_slots_by_accelerator(api: ApiHouse, world: World) -> None:
    world.node(slots=2)
    running(api, world, api.data_set("a", "b"))
    told = api.client.get("/metrics").text
    assert 'thaw_slots{accelerator="cpu",state="held"} 1.0' in told
    assert 'thaw_slots{accelerator="cpu",state="free"} 1.0' in told
    assert f'thaw_jobs{{state="{JobState.DISPATCHED}"}}' in told


def test_where_many_wait_those_who_ask_share_one_forecast_for_a_moment(
    api: ApiHouse, world: World, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.services.turns._MANY", 2)
    world.node(slots=1)
    waiting = [world.read(api.job(training_file=api.data_set("a", "b"))["id"])]
    clock = [0.0]
    turns = Turns(settings, PastUsage(60.0), clock=lambda: clock[0])

    def place(job: Job) -> int | None:
        with transaction(api.engine) as session:
            return turns.tell(session, job, job_summary(job)).queue_position

    assert place(waiting[0]) == 1, "too few to share"
    waiting.append(world.read(api.job(training_file=waiting[0].training_file_id, priority=1)["id"]))
    assert [place(job) for job in waiting] == [2, 1]
    waiting.append(world.read(api.job(training_file=waiting[0].training_file_id, priority=2)["id"]))
    assert place(waiting[0]) == 2, "as it was"
    assert place(waiting[2]) == 1, "it is not in that forecast, so another is made"
    assert place(waiting[0]) == 3
    api.move(waiting[2].id, JobState.CANCELLED)
    assert place(waiting[0]) == 3
    clock[0] += 3.0
    assert place(waiting[0]) == 2


def test_what_a_quota_bars_has_a_place_and_no_likely_start(api: ApiHouse, world: World) -> None:
    world.node(slots=3)
    file = api.data_set("a", "b")
    first = api.job(training_file=file)
    quota = {"nominal_quota": 1, "borrowing_limit": 0}
    with transaction(api.engine) as session:
        session.add(TeamQuota(team_id=first["organization_id"], accelerator="cpu", **quota))
    second = api.job(training_file=file)["id"]
    starts = [job["estimated_start"] for job in queue(api)["data"]]
    assert starts[0]["latest"] <= time.time()
    assert (starts[1]["likely"], starts[1]["latest"]) == (None, None), "the slots are free, and not for it"
    assert one(api, second)["queue_position"] == 2
