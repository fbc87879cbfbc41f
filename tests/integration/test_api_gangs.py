"""Jobs on several nodes over HTTP: which are taken, which can never run, and where one shows that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from api_house import JOBS, ApiHouse, api_on, refused

from shared.db.engine import transaction
from shared.db.models import Job
from shared.db.placement import place
from shared.domain.cluster import Part, Placement
from shared.settings import Settings

EXTRACTIONS = "/v1/feature_extraction/jobs"


@pytest.fixture
def api(settings: Settings) -> Iterator[ApiHouse]:
    with api_on(settings) as house:
        yield house


def body(api: ApiHouse, *, nodes: int, **changes: Any) -> dict[str, Any]:
    file = api.data_set("cat", "dog", samples=10)
    return {"training_file": file, "resources": {"nodes": nodes, "devices_per_node": 2}, **changes}


def test_a_job_on_as_many_nodes_as_there_are_is_taken_and_shows_where_it_runs(api: ApiHouse) -> None:
    for name in ("node-0", "node-1"):
        api.node(name, slots=2)
    job = api.submit(**body(api, nodes=2)).json()["id"]
    with transaction(api.engine) as session:
        assert place(session, Placement(job, (Part("node-1", (0, 1)), Part("node-0", (0, 1)))))

    (attempt,) = api.client.get(f"{JOBS}/{job}").json()["attempts"]

    where = [(share["node"], share["node_rank"], share["slots"]) for share in attempt["nodes"]]
    assert where == [("node-1", 0, [0, 1]), ("node-0", 1, [0, 1])]
    assert [share["state"] for share in attempt["nodes"]] == ["offered", "offered"]


def test_more_nodes_than_could_ever_take_it_at_once_are_refused_with_how_many_there_are(
    api: ApiHouse,
) -> None:
    for name in ("node-0", "node-1"):
        api.node(name, slots=2)
    api.node("small", slots=1)
    api.node("other", slots=2, accelerator="NVIDIA T4")

    error = refused(api.submit(**body(api, nodes=3)), 422, "resources.nodes", "2 with cpu", "at most 2")
    assert error["code"] == "never_available"
    assert api.count(Job) == 0


def test_a_gang_that_could_not_meet_is_refused_with_the_address_that_is_wrong(api: ApiHouse) -> None:
    """Two machines that both give their loopback: their ranks would wait for one another for an hour."""
    for name, machine in (("node-0", "m"), ("node-1", "n")):
        api.node(name, slots=2, machine=machine)
    words = ("node-0 and node-1", "THAW_ADVERTISE_HOST")
    error = refused(api.submit(**body(api, nodes=2)), 422, "resources.nodes", *words)
    assert error["code"] == "never_available"
    assert api.submit(**body(api, nodes=1)).status_code == 200

    for name, machine in (("node-0", "m"), ("node-1", "n")):
        api.node(name, slots=2, machine=machine, host=f"{name}.example")
    assert api.submit(**body(api, nodes=2)).status_code == 200


def test_ranks_of_all_nodes_share_the_global_batch(api: ApiHouse) -> None:
    for name in ("node-0", "node-1"):
        api.node(name, slots=2)
    odd = body(api, nodes=2, hyperparameters={"batch_size": 6})
    refused(api.submit(**odd), 422, "hyperparameters.batch_size", "4 ranks do not divide it")
    taken = api.submit(**body(api, nodes=2)).json()
    assert taken["hyperparameters"]["batch_size"] == 20


def test_a_plan_says_of_each_kind_of_node_whether_there_are_enough(api: ApiHouse) -> None:
    for name in ("node-0", "node-1"):
        api.node(name, slots=2, memory_bytes=2**40)
    api.node("other", slots=2, accelerator="NVIDIA T4", memory_bytes=2**40)

    plan = api.client.post("/v1/fine_tuning/plan", json={"model": "resnet18", **body(api, nodes=2)}).json()

    fits = {fit["accelerator"]: fit for fit in plan["fits"]}
    assert fits["cpu"]["fits"] is True
    assert fits["NVIDIA T4"]["fits"] is False
    assert "asks for 2 nodes" in fits["NVIDIA T4"]["reason"]


def test_a_teams_most_devices_are_counted_over_all_nodes(api: ApiHouse) -> None:
    for name in ("node-0", "node-1"):
        api.node(name, slots=2)
    terms = {"limits": {"max_devices": 3}}
    assert api.client.put("/v1/teams/default/quota", json=terms).status_code == 200
    refused(api.submit(**body(api, nodes=2)), 422, "resources.devices_per_node", "at most 3", "asks for 4")


def test_activations_are_saved_on_one_node_only_and_more_are_refused(api: ApiHouse) -> None:
    for name in ("node-0", "node-1"):
        api.node(name, slots=2)
    captured = body(api, nodes=2, capture=["layer4"], validation_fraction=0.2)
    refused(api.submit(**captured), 422, "capture", "one node only")
    asked = body(api, nodes=2)
    file = asked.pop("training_file")
    extraction = {"model": "resnet18", "weights": "none", "modules": ["layer4"], "input_file": file}
    answer = api.client.post(EXTRACTIONS, json={**extraction, **asked})
    refused(answer, 422, "resources.nodes", "one node only")
