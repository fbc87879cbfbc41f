"""The stack under test: 2 schedulers, an API, nodes, Postgres, Redis and an S3 store, each behind gates."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from socket import create_connection
from urllib.parse import quote

import httpx
from harness.disks import small_disks
from harness.gates import Gate, Gates, free_port
from harness.keeper import Keeper

from devstack.folder import DataFolder
from devstack.house import ROOT, House, environment
from devstack.postgres import USER, Postgres
from devstack.processes import Child, Part
from devstack.redis import Redis
from devstack.sockets import socket_folder
from shared.settings import Settings

HOST = "127.0.0.1"
N_SLOTS = 2
SCHEDULERS = ("scheduler-0", "scheduler-1")
CENTRE = "centre"
_BUCKET = "thaw"
_DATABASE = "thaw"
_MODELS = Path(__file__).resolve().parents[1] / "models"
_POSTGRES_SOCKET = ".s.PGSQL.5432"
# As many as are lost: what a job may lose is counted by the checker, not cut off by the product.
_MAX_ATTEMPTS = "100"


@dataclass(frozen=True)
class Cluster:
    """A running stack. `gates` has, by party (a node, or the centre) and server, what stands between."""

    folder: DataFolder
    keeper: Keeper
    postgres: Postgres
    redis: Redis
    nodes: tuple[str, ...]
    url: str
    gates: Mapping[tuple[str, str], Gate]
    settings: Settings
    marker: str

    @property
    def api_key(self) -> str:
        return self.folder.admin_key.read_text(encoding="utf-8").strip()

    @property
    def database_url(self) -> str:
        """The database past all gates, for who looks on."""
        return self.postgres.url(_DATABASE)

    @property
    def witnesses(self) -> Path:
        """Where the ranks write what they do."""
        return self.folder.root / "witnesses"

    def work_dir(self, node: str) -> Path:
        return self.folder.nodes / node

    def pid_of_node(self, node: str) -> int | None:
        """Celery's main process; None while it is down."""
        return self.keeper.pid(part_of_node(node))


def part_of_node(node: str) -> str:
    """The name of the part that is the node's worker."""
    return node.replace("node", "worker")


@contextmanager
def running_cluster(root: Path, *, n_nodes: int, time_scale: float, step_s: float) -> Iterator[Cluster]:
    """The stack below `root`; `step_s` is the least time of a training step, in seconds."""
    folder = DataFolder.prepare(root)
    nodes = tuple(f"node-{index}" for index in range(n_nodes))
    disks = small_disks([folder.nodes / node for node in nodes])
    with folder.locked(), disks, Gates() as gates, Keeper() as keeper:
        yield _Builder(folder, keeper, gates, time_scale, step_s).build(nodes)


class _Builder:
    def __init__(
        self, folder: DataFolder, keeper: Keeper, gates: Gates, time_scale: float, step_s: float
    ) -> None:
        self._folder = folder
        self._keeper = keeper
        self._gates = gates
        self._time_scale = time_scale
        self._step_s = step_s
        self._store_port = free_port()
        self._postgres = Postgres.prepare(folder.root / "postgres", durable=True)
        self._redis = Redis.prepare(folder.root / "redis")
        self._made: dict[tuple[str, str], Gate] = {}
        self._marker = uuid.uuid4().hex

    def build(self, nodes: tuple[str, ...]) -> Cluster:
        self._start_servers()
        centre = self._house(CENTRE)
        for part in (centre.migration(), centre.bootstrap()):
            _run(part)
        port = free_port()
        schedulers = [self._named(centre.scheduler(), name) for name in SCHEDULERS]
        self._keeper.start(centre.api(HOST, port), *schedulers)
        workers = [self._house(node).worker(number, N_SLOTS) for number, node in enumerate(nodes)]
        # The first one describes the registered models, which takes a while; the others find that done.
        self._keeper.start(workers[0])
        self._keeper.start(*workers[1:])
        return Cluster(
            folder=self._folder,
            keeper=self._keeper,
            postgres=self._postgres,
            redis=self._redis,
            nodes=nodes,
            url=f"http://{HOST}:{port}",
            gates=self._made,
            settings=_settings(centre.env),
            marker=self._marker,
        )

    def _start_servers(self) -> None:
        logs = self._folder.logs
        store = Part(
            name="store",
            argv=(sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self._store_port)),
            env=dict(os.environ),
            log=logs / "store.log",
            folder=self._folder.root,
            ready=self._store_listens,
        )
        self._keeper.start(
            self._postgres.part(logs / "postgres.log"), self._redis.part(logs / "redis.log"), store
        )
        self._postgres.create_database(_DATABASE)
        httpx.put(f"http://{HOST}:{self._store_port}/{_BUCKET}").raise_for_status()

    def _store_listens(self) -> bool:
        try:
            create_connection((HOST, self._store_port), timeout=1).close()
        except OSError:
            return False
        return True

    def _house(self, party: str) -> House:
        """Thaw's processes of one party, whose every connection goes through gates of its own."""
        sockets = socket_folder(self._folder.root / "gates" / party)
        store_at = (HOST, free_port())
        self._gate(party, "postgres", sockets / _POSTGRES_SOCKET, self._postgres.sockets / _POSTGRES_SOCKET)
        self._gate(party, "redis", sockets / "redis.sock", self._redis.socket)
        self._gate(party, "store", store_at, (HOST, self._store_port))
        env = environment(
            self._folder,
            f"postgresql+psycopg://{USER}@/{_DATABASE}?host={quote(str(sockets))}&port=5432",
            f"redis+socket://{quote(str(sockets / 'redis.sock'))}?virtual_host=0",
        )
        return House(self._folder, {**env, **self._own_settings(store_at)})

    def _gate(self, party: str, server: str, at: Path | tuple[str, int], to: Path | tuple[str, int]) -> None:
        self._made[party, server] = self._gates.make(at, to)

    def _own_settings(self, store_at: tuple[str, int]) -> dict[str, str]:
        imports = _import_path(self._folder.root / "site")
        (self._folder.root / "witnesses").mkdir(exist_ok=True)
        trainer_env = {
            "PYTHONPATH": imports,
            "CHAOS_LOGS": str(self._folder.root / "witnesses"),
            "CHAOS_STEP_S": str(self._step_s),
            "CHAOS_MARKER": self._marker,
        }
        return {
            "PYTHONPATH": imports,
            "THAW_TIME_SCALE": str(self._time_scale),
            "THAW_MAX_ATTEMPTS": _MAX_ATTEMPTS,
            "THAW_STORE_URL": f"s3://{_BUCKET}/artifacts",
            "THAW_S3_ENDPOINT": "http://{}:{}".format(*store_at),
            "THAW_S3_ACCESS_KEY_ID": "chaos",
            "THAW_S3_SECRET_ACCESS_KEY": "chaos",
            "THAW_TRAINER_ENV": json.dumps(trainer_env),
        }

    def _named(self, part: Part, name: str) -> Part:
        return replace(part, name=name, log=self._folder.logs / f"{name}.log")


def _run(part: Part) -> None:
    child = Child(part)
    while child.exit_status() is None:
        time.sleep(0.05)
    if child.exit_status() != 0:
        raise RuntimeError(f"{part.name} failed: see {part.log}")


def _import_path(site: Path) -> str:
    """Where the model of these runs is, and a distribution that registers it; nothing is installed."""
    info = site / "thaw_chaos_models-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thaw-chaos-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[thaw.models]\nslow_network = thaw_chaos_models:slow_network\n")
    inherited = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(path)]
    return os.pathsep.join([str(_MODELS), str(site), str(ROOT), *inherited])


def _settings(env: Mapping[str, str]) -> Settings:
    """The centre's own settings, for what is asked of the queue and the database here."""
    names = ("DATABASE_URL", "REDIS_URL", "STORE_URL", "TIME_SCALE")
    return Settings.model_validate({name.lower(): env[f"THAW_{name}"] for name in names})
