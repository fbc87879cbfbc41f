"""The client: one object for one server.

from thaw.client import Thaw

thaw = Thaw("http://127.0.0.1:8000", api_key)
file = thaw.files.upload(Path("digits"))
job = thaw.jobs.create({"model": "resnet18", "training_file": file.id, "freeze": "backbone"})
print(thaw.jobs.wait(job.id).status)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

from thaw.checkpoints import Checkpoints
from thaw.files import Files
from thaw.jobs import Jobs
from thaw.paging import pages
from thaw.team_quotas import TeamQuotas
from thaw.teams import Keys, Teams
from thaw.transport import Transport


class Thaw:
    """A Thaw server, seen with one API key. Every method raises ServerRefused or ServerUnreachable."""

    def __init__(self, url: str, api_key: str) -> None:
        self._transport = Transport(url, api_key)
        self.files = Files(self._transport)
        self.jobs = Jobs(self._transport)
        self.checkpoints = Checkpoints(self._transport)
        self.models = Models(self._transport)
        self.teams = Teams(self._transport)
        self.keys = Keys(self._transport)
        self.quotas = TeamQuotas(self._transport)

    def plan(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What a job would freeze and train, before anything runs. The files may be left out of `spec`."""
        return self._transport.post("/v1/fine_tuning/plan", spec)

    def nodes(self) -> list[dict[str, Any]]:
        """The machines that jobs run on."""
        return list(self._transport.get("/v1/nodes")["data"])

    def node(self, node_id: str) -> dict[str, Any]:
        """One node, and which of the team's jobs hold its slots."""
        return self._transport.get(_node_path(node_id))

    def drain(self, node_id: str) -> dict[str, Any]:
        """For admins: give the node no more work, and have its jobs leave it."""
        return self._transport.post(f"{_node_path(node_id)}/drain")

    def undrain(self, node_id: str) -> dict[str, Any]:
        """For admins: give a drained node work again."""
        return self._transport.post(f"{_node_path(node_id)}/undrain")

    def queue(self) -> dict[str, Any]:
        """The team's jobs that wait for slots (for admins, all teams'), a thousand at most, and the slots.

        Each job in `data` has `queue_position`, `wait_reason` and `estimated_start`.
        """
        return self._transport.get("/v1/queue", limit=1000)

    def usage(
        self,
        group_by: Sequence[str] = (),
        *,
        start: int | None = None,
        end: int | None = None,
        team: str | None = None,
    ) -> dict[str, Any]:
        """The hours for which slots were held, by any of team, person, model and day.

        `start` and `end` are Unix seconds; left out, the last 30 days. `team`: for admins, one team alone.
        """
        return self._transport.get("/v1/usage", group_by=group_by, start=start, end=end, team=team)

    def audit(
        self, *, team: str | None = None, key: str | None = None, target: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """For owners and admins: every write request, the newest first, fetched a page at a time."""
        return pages(self._transport, "/v1/audit", filters={"team": team, "key": key, "target": target})

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Thaw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _node_path(node_id: str) -> str:
    return f"/v1/nodes/{quote(node_id, safe='')}"


class Models:
    """The networks that a job can begin from."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> list[dict[str, Any]]:
        """All base models: torchvision's and the registered ones."""
        return list(self._transport.get("/v1/models")["data"])

    def layers(self, name: str) -> dict[str, Any]:
        """The layer tree and the blocks of one model."""
        return self._transport.get(f"/v1/models/{quote(name, safe='')}/layers")
