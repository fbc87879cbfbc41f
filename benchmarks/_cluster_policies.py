"""The ways of sharing a cluster that are put side by side. All of them ask the scheduler's own `decide`.

So placement on nodes and the keeping of room for the first job that finds none are the same in each; what
differs is what a pass is told of teams, quotas, past usage and order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from _cluster_load import Host, Job, apportioned, sizes_by_accelerator

from shared.domain.cluster import Waiting
from shared.domain.quota import Quota, TeamShare


@dataclass(frozen=True)
class Policy:
    """`knows_teams`: else all jobs stand in one line, as those of one team."""

    name: str
    knows_teams: bool
    knows_priority: bool
    shares: Mapping[str, TeamShare] = field(default_factory=dict)

    def team(self, job: Job) -> str:
        return job.team if self.knows_teams else ""

    def waiting(self, job: Job, queued_at: float) -> Waiting:
        """The job as the scheduler's queue holds it."""
        return Waiting(
            id=job.id,
            order=(-job.priority if self.knows_priority else 0, queued_at, job.id),
            devices_per_node=job.devices,
            accelerator=job.accelerator,
            nodes=job.nodes,
            team=self.team(job),
        )


def policies(hosts: Sequence[Host], weights: Mapping[str, float]) -> list[Policy]:
    """Where there are quotas, those of a type add up to all of its GPUs, by the teams' weights."""
    return [
        Policy("fair share", knows_teams=True, knows_priority=True, shares=_shares(hosts, weights)),
        Policy(
            "fair, no quotas",
            knows_teams=True,
            knows_priority=True,
            shares={team: TeamShare(weight) for team, weight in weights.items()},
        ),
        Policy("first come", knows_teams=False, knows_priority=False),
        Policy(
            "strict quotas",
            knows_teams=True,
            knows_priority=True,
            shares=_shares(hosts, weights, borrowing_limit=0),
        ),
        Policy("plain priority", knows_teams=False, knows_priority=True),
    ]


def _shares(
    hosts: Sequence[Host], weights: Mapping[str, float], borrowing_limit: int | None = None
) -> dict[str, TeamShare]:
    nominal = {kind: apportioned(slots, weights) for kind, slots in sizes_by_accelerator(hosts).items()}
    return {
        team: TeamShare(
            weight, {kind: Quota(of_team[team], borrowing_limit) for kind, of_team in nominal.items()}
        )
        for team, weight in weights.items()
    }
