"""The commands of Thaw's own processes, and the environment that tells them where things are."""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from devstack.folder import DataFolder
from devstack.processes import Part
from devstack.roll import has_registered
from shared.setting_names import FOR_THE_CLIENT

ROOT = Path(__file__).resolve().parent.parent
# Below the ports that the system gives to outgoing connections.
_RENDEZVOUS_PORTS = range(20_000, 32_000)
_PORTS_OF_A_NODE = 16
_WORKER_STOPS_WITHIN_S = 45.0


@dataclass(frozen=True)
class House:
    """Makes the parts that run Thaw's own code on one data folder."""

    folder: DataFolder
    env: Mapping[str, str]

    def migration(self) -> Part:
        """Bring the tables to the newest shape, and end."""
        return self._python("migrate", "alembic", "-c", str(ROOT / "alembic.ini"), "upgrade", "head")

    def bootstrap(self) -> Part:
        """Make the default team and write the first admin key, where there is none yet, and end."""
        return self._python("bootstrap", "api.bootstrap", "--key-file", str(self.folder.admin_key))

    def api(self, host: str, port: int) -> Part:
        """The HTTP service; ready when it says so itself."""
        part = self._python("api", "api", "--host", host, "--port", str(port))
        return replace(part, ready=lambda: _says_ready(host, port))

    def scheduler(self) -> Part:
        """The process that decides what runs where."""
        return self._python("scheduler", "scheduler")

    def worker(self, index: int, slots: int | None) -> Part:
        """One node, ready when it has registered. Nodes share this machine: each has ports of its own."""
        name = f"node-{index}"
        work_dir = self.folder.nodes / name
        work_dir.mkdir(mode=0o700, exist_ok=True)
        env = {
            **self.env,
            "THAW_NODE_NAME": name,
            "THAW_WORK_DIR": str(work_dir),
            "THAW_PORT_BASE": str(_rendezvous_port(self.env, index, slots)),
        }
        if slots is not None:
            env["THAW_SLOTS"] = str(slots)
        part = self._python(f"worker-{index}", "worker")
        made = datetime.now(UTC)
        return replace(
            part,
            env=env,
            ready=lambda: has_registered(self.env["THAW_DATABASE_URL"], name, made),
            stop_within_s=_WORKER_STOPS_WITHIN_S,
        )

    def _python(self, name: str, module: str, *arguments: str) -> Part:
        return Part(
            name=name,
            argv=(sys.executable, "-m", module, *arguments),
            env=self.env,
            log=self.folder.logs / f"{name}.log",
            folder=ROOT,
        )


def environment(folder: DataFolder, database_url: str, redis_url: str) -> dict[str, str]:
    """What Thaw's processes are told: our own environment, less what is meant for the client."""
    ours = {name: value for name, value in os.environ.items() if name not in FOR_THE_CLIENT}
    return {
        "THAW_LOG_LEVEL": "INFO",
        **ours,
        "THAW_DATABASE_URL": database_url,
        "THAW_REDIS_URL": redis_url,
        "THAW_STORE_URL": folder.store.as_uri(),
    }


def _rendezvous_port(env: Mapping[str, str], index: int, slots: int | None) -> int:
    first = int(env.get("THAW_PORT_BASE", _first_port_of_this_stack()))
    return first + index * max(slots or 0, _PORTS_OF_A_NODE)


def _first_port_of_this_stack() -> int:
    """Differs from stack to stack, since several may run on one machine."""
    blocks = _RENDEZVOUS_PORTS[::_PORTS_OF_A_NODE]
    return blocks[os.getpid() % len(blocks)]


def _says_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):  # not listening yet
        return False
    finally:
        connection.close()
