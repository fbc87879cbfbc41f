"""The network policies of deploy/: who may reach whom, worked out as a cluster's network plugin does."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from manifests import BASE, COMPONENT, EXAMPLE, Manifests, read, selects, written

DNS, POSTGRES, REDIS, HTTPS, API = 53, 5432, 6379, 443, 8000
METADATA_SERVICE = "169.254.0.0/16"


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    return written(BASE)


def rules(manifests: Manifests, component: str, direction: str) -> list[dict[str, Any]]:
    """What the policies let through that hold for the component's pods."""
    labels = manifests.templates[component]["metadata"]["labels"]
    return [
        rule
        for policy in manifests.of("NetworkPolicy")
        if selects(policy["spec"]["podSelector"], labels)
        for rule in policy["spec"].get(direction, [])
    ]


def ports(rule: dict[str, Any]) -> set[int]:
    return {port["port"] for port in rule.get("ports", [])}


def test_what_no_policy_lets_through_does_not_pass(manifests: Manifests) -> None:
    closed = manifests.one("NetworkPolicy", "nobody-anybody")["spec"]

    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for policy in manifests.of("NetworkPolicy"):
        given = {"Ingress": "ingress" in policy["spec"], "Egress": "egress" in policy["spec"]}
        if policy["spec"] is not closed:
            assert policy["spec"]["policyTypes"] == [kind for kind in given if given[kind]]


def test_only_workers_reach_the_ports_of_trainers(manifests: Manifests) -> None:
    (rule,) = rules(manifests, "worker", "ingress")
    (peer,) = rule["from"]

    assert peer == {"podSelector": {"matchLabels": {COMPONENT: "worker"}}}, "in this namespace alone"
    assert ports(rule) == set(), "all: gloo and NCCL take what the kernel gives them"
    for service in manifests.of("Service"):
        if service["metadata"]["name"] == "worker":
            assert service["spec"]["clusterIP"] == "None"
        else:
            labels = manifests.templates["worker"]["metadata"]["labels"]
            assert not selects({"matchLabels": service["spec"]["selector"]}, labels)
    assert "ports" not in manifests.container("worker")


@pytest.mark.parametrize(
    ("component", "reached"),
    [
        ("migrate", {DNS, POSTGRES}),
        ("api", {DNS, POSTGRES, HTTPS}),
        ("scheduler", {DNS, POSTGRES, REDIS, HTTPS}),
        ("worker", {DNS, POSTGRES, REDIS, HTTPS}),
    ],
)
def test_each_reaches_what_it_needs_and_no_more(
    manifests: Manifests, component: str, reached: set[int]
) -> None:
    found = rules(manifests, component, "egress")
    to_all = [rule for rule in found if not ports(rule)]

    assert {port for rule in found for port in ports(rule)} == reached
    assert [peer for rule in to_all for peer in rule["to"]] == (
        [{"podSelector": {"matchLabels": {COMPONENT: "worker"}}}] if component == "worker" else []
    )


def test_nobody_is_asked_but_the_api(manifests: Manifests) -> None:
    assert [ports(rule) for rule in rules(manifests, "api", "ingress")] == [{API}]
    for component in ("scheduler", "migrate"):
        assert rules(manifests, component, "ingress") == []


def test_no_pod_reaches_the_machine_s_metadata_service(manifests: Manifests) -> None:
    peers = [
        peer["ipBlock"]
        for policy in manifests.of("NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for peer in rule["to"]
        if "ipBlock" in peer
    ]

    assert {block["cidr"] for block in peers} == {"0.0.0.0/0", "::/0"}
    for block in peers:
        assert block["except"][0] == (METADATA_SERVICE if block["cidr"] == "0.0.0.0/0" else "fe80::/10")


def test_the_ports_are_those_of_the_example_s_addresses(manifests: Manifests) -> None:
    (credentials,) = read(EXAMPLE)
    addresses = [credentials["stringData"][name] for name in ("THAW_DATABASE_URL", "THAW_REDIS_URL")]

    assert [urlsplit(address).port for address in addresses] == [POSTGRES, REDIS]
