"""The stack from nothing to ready: databases, tables, the first key, and every process of Thaw."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devstack.folder import DataFolder
from devstack.house import House, environment
from devstack.postgres import Postgres
from devstack.redis import Redis
from devstack.supervisor import Stopped, Supervisor
from shared.setting_names import unknown_names
from shared.settings import Settings

HOST = "127.0.0.1"
_DATABASE = "thaw"
_DEFAULT_SLOTS = 2


class BadOption(ValueError):
    """An option of `thaw up`, or a variable around it, that cannot be kept."""


@dataclass(frozen=True)
class Options:
    """What to bring up. Port 0 takes a free one; `slots` None means the GPUs found, else two CPU slots."""

    data_dir: Path
    port: int
    workers: int
    slots: int | None


def up(options: Options) -> None:
    """Bring the stack up, say so on standard output, and keep it up until asked to stop."""
    _check_environment()
    slots = _slots_of_each_node(options)
    folder = DataFolder.prepare(options.data_dir)
    with suppress(Stopped), folder.locked(), Supervisor() as supervisor:
        port = _usable_port(options.port)
        house = _start_databases(supervisor, folder)
        supervisor.run(house.migration())
        supervisor.run(house.bootstrap())
        supervisor.start(house.api(HOST, port))
        supervisor.start(house.scheduler())
        supervisor.start(*(house.worker(index, slots) for index in range(options.workers)))
        sys.stdout.write(f"ready http://{HOST}:{port}\n")
        sys.stdout.flush()
        supervisor.watch()


def _check_environment() -> None:
    """Said here, where it is seen; every part would refuse it in its log."""
    if complaint := unknown_names(os.environ, Settings.model_fields):
        raise BadOption(complaint)


def _start_databases(supervisor: Supervisor, folder: DataFolder) -> House:
    postgres = Postgres.prepare(folder.root / "postgres", durable=True)
    redis = Redis.prepare(folder.root / "redis")
    supervisor.start(postgres.part(folder.logs / "postgres.log"), redis.part(folder.logs / "redis.log"))
    if not postgres.has_database(_DATABASE):
        postgres.create_database(_DATABASE)
    return House(folder, environment(folder, postgres.url(_DATABASE), redis.url()))


def _slots_of_each_node(options: Options) -> int | None:
    if options.workers < 0:
        raise BadOption(f"--workers {options.workers}: give 0 or more")
    if options.slots is not None:
        if options.slots < 1:
            raise BadOption(f"--slots {options.slots}: give 1 or more")
        return options.slots
    if not Path("/dev/nvidia0").exists():
        return _DEFAULT_SLOTS
    if options.workers > 1:
        raise BadOption(
            f"--workers {options.workers}: each node would take all GPUs of this machine;"
            " give --workers 1, or --slots S for CPU slots"
        )
    return None


def _usable_port(port: int) -> int:
    """The port itself, or a free one for 0. Raises BadOption when it cannot be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise BadOption(
                f"--port {port} cannot be used on {HOST} ({error}); 0 takes a free one"
            ) from error
        return int(probe.getsockname()[1])
