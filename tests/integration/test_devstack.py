"""The embedded servers and the supervisor: they answer, keep what they hold, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psutil
import psycopg
import pytest
import sqlalchemy as sa
from kombu import Connection

from devstack import identity
from devstack.folder import DataFolder, FolderInUse
from devstack.postgres import Postgres
from devstack.processes import Child, Part, PartFailed, running
from devstack.redis import Redis
from devstack.roll import has_registered
from devstack.sockets import socket_folder
from devstack.supervisor import Stopped, Supervisor
from shared.db.engine import make_engine, transaction
from shared.db.nodes import NodeFacts, register

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30.0

SERVE = """
import sys, time
from pathlib import Path
from devstack.postgres import Postgres
from devstack.processes import Child
from devstack.redis import Redis
folder = Path(sys.argv[1])
postgres = Postgres.prepare(folder / "postgres", durable=True)
redis = Redis.prepare(folder / "redis")
children = [Child(postgres.part(folder / "postgres.log")), Child(redis.part(folder / "redis.log"))]
for child in children:
    child.wait_ready()
print("ready", flush=True)
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < until, f"not within {LIMIT_S:g} s: {what}"
        time.sleep(0.02)


def processes_about(folder: Path) -> list[str]:
    """The commands of all processes that name `folder` or work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            command, where = " ".join(process.cmdline()), process.cwd()
        except psutil.Error:
            continue
        if str(folder) in command or where.startswith(str(folder)):
            found.append(command)
    return found


@contextmanager
def servers_of_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout
    try:
        assert owner.stdout.readline() == "ready\n"
        yield owner
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


def shell(name: str, script: str, folder: Path, **options: object) -> Part:
    return Part(
        name=name,
        argv=("sh", "-c", script),
        env={"PATH": os.environ["PATH"]},
        log=folder / f"{name}.log",
        folder=folder,
        **options,  # type: ignore[arg-type]  # whichever fields the test sets
    )


def append_only_file(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*.aof"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_test_gets_a_migrated_database_of_its_own(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM alembic_version")) == 1
        assert connection.scalar(sa.text("SELECT count(*) FROM jobs")) == 0
        assert connection.scalar(sa.text("SELECT lower('ÄÖ')")) == "äö"
    engine.dispose()


def test_the_queue_takes_and_gives_a_message(redis_url: str) -> None:
    with Connection(redis_url) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put({"a": 1})
        assert queue.get(timeout=5).payload == {"a": 1}
        queue.close()


def test_servers_end_with_a_killed_parent_and_go_on_from_what_was_committed(tmp_path: Path) -> None:
    with servers_of_another_process(tmp_path) as owner:
        postgres = Postgres.prepare(tmp_path / "postgres", durable=True)
        redis = Redis.prepare(tmp_path / "redis")
        postgres.create_database("kept")
        address = postgres.url("kept").replace("+psycopg", "")
        with psycopg.connect(address) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")
        with closing(psycopg.connect(address)) as busy, redis.client() as client:
            client.set("kept", "yes")
            client.lpush("letters", "one")
            busy.execute("SELECT n FROM t")
            assert processes_about(tmp_path)
            # Redis puts off a write for up to 2 s while its file is being synced.
            wait_for(lambda: b"letters" in append_only_file(tmp_path), "Redis has written what it took")
            owner.kill()
            owner.wait()
            wait_for(lambda: not processes_about(tmp_path), "the servers end with their parent")

    with running(postgres.part(tmp_path / "postgres.log")), psycopg.connect(address) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (7,)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
    with running(redis.part(tmp_path / "redis.log")), redis.client() as client:
        assert client.get("kept") == b"yes"
        assert client.lrange("letters", 0, -1) == [b"one"]
    assert not processes_about(tmp_path)


def test_a_stale_pid_file_that_names_a_strangers_process_does_not_block(tmp_path: Path) -> None:
    postgres = Postgres.prepare(tmp_path / "postgres", durable=False)
    with running(shell("stranger", "exec sleep 600", tmp_path)) as stranger:
        (postgres.data / "postmaster.pid").write_text(f"{stranger.pid}\n{postgres.data}\n1\n5432\n\n\n1 1\n")
        with running(postgres.part(tmp_path / "log")):
            assert postgres.has_database("postgres")
        assert stranger.exit_status() is None


def test_a_killed_postgres_starts_again_though_a_query_still_runs(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "unfinished").mkdir(parents=True)  # an initdb was killed before that
    (tmp_path / "postgres" / "unfinished" / "PG_VERSION").touch()
    postgres = Postgres.prepare(tmp_path / "postgres", durable=False)
    part = postgres.part(tmp_path / "log")
    first = Child(part)
    first.wait_ready()
    address = postgres.url("postgres").replace("+psycopg", "")
    with closing(psycopg.connect(address)) as busy:
        busy.pgconn.send_query(b"DO $$ BEGIN LOOP END LOOP; END $$")  # never looks whether its server lives
        os.kill(first.pid, signal.SIGKILL)
        first.stop()
        assert (postgres.data / "postmaster.pid").exists(), "the kill left no pid file to get past"
        with running(part), psycopg.connect(address) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root takes on another user")
def test_postgres_runs_as_nobody_where_user_namespaces_are_blocked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "IN_NAMESPACE", identity.Identity(prefix=("false",)))
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    postgres = Postgres.prepare(closed / "postgres", durable=False)
    with running(postgres.part(tmp_path / "log")) as child:
        assert psutil.Process(child.pid).uids().real == identity.NOBODY
        assert postgres.has_database("postgres")
    assert (mode_of(closed), closed.stat().st_uid) == (0o700, 0)


def test_no_folder_above_is_opened(tmp_path: Path) -> None:
    above = tmp_path / "private"
    above.mkdir(mode=0o700)
    before = [(folder, folder.stat().st_mode, folder.stat().st_uid) for folder in (above, *above.parents)]
    postgres = Postgres.prepare(above / "postgres", durable=False)
    redis = Redis.prepare(above / "redis")
    with running(postgres.part(tmp_path / "pg.log")), running(redis.part(tmp_path / "redis.log")):
        assert mode_of(postgres.sockets) == 0o700
        assert mode_of(redis.socket) == 0o700
        assert mode_of(redis.folder) == 0o700
    assert before == [
        (folder, folder.stat().st_mode, folder.stat().st_uid) for folder in (above, *above.parents)
    ]


def test_servers_work_in_a_folder_too_deep_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    redis = Redis.prepare(deep / "redis")
    assert redis == Redis.prepare(deep / "redis"), "the address must survive a restart"
    with running(redis.part(tmp_path / "log")), redis.client() as client:
        assert client.ping()
        assert mode_of(redis.socket.parent) == 0o700
    redis.socket.parent.rmdir()


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    wanted = tmp_path / ("d" * 120)
    folder = socket_folder(wanted)
    folder.chmod(0o755)
    try:
        with pytest.raises(RuntimeError, match="mode 0700"):
            socket_folder(wanted)
    finally:
        folder.rmdir()


def test_redis_never_evicts_and_writes_what_it_takes(redis_server: Redis) -> None:
    with redis_server.client() as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("port") == {"port": "0"}


def test_a_part_that_dies_is_started_again_and_all_are_stopped(tmp_path: Path) -> None:
    with Supervisor() as supervisor:
        supervisor.start(shell("first", "exec sleep 600", tmp_path))
        supervisor.start(shell("second", "sleep 601 & exec sleep 602", tmp_path))
        before = supervisor.pids()
        os.kill(before["first"], signal.SIGKILL)
        watch_until(supervisor, lambda: supervisor.pids().get("first") not in (None, before["first"]))
        after = supervisor.pids()
        assert after["second"] == before["second"]
    assert not [pid for pid in (*before.values(), *after.values()) if psutil.pid_exists(pid)]
    assert not processes_about(tmp_path)


def watch_until(supervisor: Supervisor, reached: Callable[[], bool]) -> None:
    """Let the supervisor watch, and ask it to stop by a signal as soon as `reached`."""
    until = time.monotonic() + LIMIT_S

    def look(number: int, frame: object) -> None:
        if reached() or time.monotonic() > until:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    old = signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pytest.raises(Stopped):
            supervisor.watch()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert reached()


def test_a_part_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    began = time.monotonic()
    with Supervisor() as supervisor:
        supervisor.start(shell("flaky", f"echo >> {starts}; sleep 0.1; exit 3", tmp_path))
        watch_until(supervisor, lambda: len(starts.read_text()) >= 3)
    assert time.monotonic() - began > 0.5 + 1.0, "the pauses of 0.5 s and 1 s were not kept"


def test_parts_stop_in_reverse_order_and_the_deaf_are_killed(tmp_path: Path) -> None:
    order = tmp_path / "order"
    noting = "trap 'echo {0} >> {1}; exit' TERM; touch {0}.up; while :; do sleep 0.02; done"
    deaf = "trap '' TERM; touch deaf.up; while :; do sleep 0.02; done"
    with Supervisor() as supervisor:
        for name in ("first", "second"):
            up = tmp_path / f"{name}.up"
            supervisor.start(shell(name, noting.format(name, order), tmp_path, ready=up.exists))
        up = tmp_path / "deaf.up"
        supervisor.start(shell("deaf", deaf, tmp_path, ready=up.exists, stop_within_s=0.2))
    assert order.read_text().split() == ["second", "first"]
    assert not processes_about(tmp_path)


def test_a_part_that_ends_before_it_is_ready_is_named_with_its_last_words(tmp_path: Path) -> None:
    part = shell("hasty", "echo the disk is full; exit 4", tmp_path, ready=lambda: False)
    with (
        Supervisor() as supervisor,
        pytest.raises(PartFailed, match=r"(?s)hasty ended with status 4.*disk is full"),
    ):
        supervisor.start(part)
    with (
        Supervisor() as supervisor,
        pytest.raises(PartFailed, match=r"(?s)hasty ended with status 4.*disk is full"),
    ):
        supervisor.run(part)


def test_a_part_that_is_too_slow_is_named(tmp_path: Path) -> None:
    part = shell("slow", "exec sleep 600", tmp_path, ready=lambda: False, ready_within_s=0.1)
    with Supervisor() as supervisor, pytest.raises(PartFailed, match=r"slow was not ready after 0.1 s"):
        supervisor.start(part)
    assert not processes_about(tmp_path)


def test_a_node_of_an_earlier_start_does_not_count_as_up(database_url: str) -> None:
    facts = NodeFacts(
        id="node-0",
        queue="node-0",
        advertise_host="127.0.0.1",
        port_base=29500,
        accelerator="cpu",
        memory_bytes=None,
        models=(),
        n_slots=1,
    )
    before = datetime.now(UTC)
    assert not has_registered(database_url, "node-0", before)
    engine = make_engine(database_url)
    with transaction(engine) as session:
        register(session, facts, uuid4())
    engine.dispose()
    assert has_registered(database_url, "node-0", before)
    assert not has_registered(database_url, "node-1", before)
    assert not has_registered(database_url, "node-0", datetime.now(UTC))


def test_a_folder_serves_one_stack_at_a_time(tmp_path: Path) -> None:
    folder = DataFolder.prepare(tmp_path / "stack")
    with folder.locked(), pytest.raises(FolderInUse, match=rf"process {os.getpid()}"), folder.locked():
        pass
    with folder.locked():
        assert mode_of(folder.root) == 0o700


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stack").write_text("a file")
    command = [sys.executable, "-m", "devstack", "--data-dir", str(tmp_path / "stack"), "--port", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no folder can be made there" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--slots", "0"], "--slots 0: give 1 or more"),
        (["--workers", "-1"], "--workers -1: give 0 or more"),
        (["--port", "70000"], "--port 70000 cannot be used"),
    ],
)
def test_an_option_that_cannot_be_kept_is_refused(tmp_path: Path, options: list[str], words: str) -> None:
    command = [sys.executable, "-m", "devstack", "--data-dir", str(tmp_path / "stack"), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
