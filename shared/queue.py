"""The queue: Celery over Redis. A message is a hint that an offer stands in the database, no more."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlsplit

import redis
from celery import Celery
from celery.utils.nodenames import worker_direct
from kombu.entity import Queue

RUN_ALLOCATION = "thaw.run_allocation"
_TIMEOUT_S = 3.0
# Kombu drops a consumer's connection whose answer is overdue by this, and looks as often.
_HEALTH_CHECK_S = 5
_OLDEST_REDIS = (6, 2)


class UnfitRedis(RuntimeError):
    """A Redis whose settings could lose messages; the message says which and what they must be."""


def make_app(redis_url: str) -> Celery:
    """A Celery application that publishes. It has no result backend: results are rows in the database."""
    app = Celery("thaw", broker=redis_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_publish_retry=False,  # an offer that could not be published is made anew
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_TIMEOUT_S,
        broker_transport_options={
            "socket_connect_timeout": _TIMEOUT_S,
            "socket_timeout": _TIMEOUT_S,  # else a Redis that hangs holds up whoever publishes
            "max_retries": 0,
            "socket_keepalive": True,
            "health_check_interval": _HEALTH_CHECK_S,
        },
    )
    return app


def hostname(node_id: str) -> str:
    """The name under which a node's Celery worker runs."""
    return f"thaw@{node_id}"


def node_queue(node_id: str) -> Queue:
    """The queue that this node alone consumes; it keeps messages while the node is away."""
    queue: Queue = worker_direct(hostname(node_id))
    return queue


def publish(app: Celery, *, node_id: str, allocation_id: str, dispatch_seq: int) -> None:
    """Tell a node that an offer stands. Raises kombu's OperationalError when Redis does not take it."""
    app.send_task(RUN_ALLOCATION, args=(allocation_id, dispatch_seq), queue=node_queue(node_id), retry=False)


def redis_client(redis_url: str) -> redis.Redis:
    """A client for an address in either form: `redis://host` or Celery's `redis+socket:///path`."""
    return redis.Redis.from_url(
        _for_redis_py(redis_url), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S
    )


def is_reachable(client: redis.Redis) -> bool:
    """Whether Redis answers now."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def n_messages(client: redis.Redis, node_id: str) -> int:
    """How many messages lie in the node's queue; 0 when Redis does not say."""
    try:
        return int(client.llen(node_queue(node_id).name))
    except redis.RedisError:
        return 0


def check_redis(client: redis.Redis) -> None:
    """Raises UnfitRedis where messages could be lost, redis.RedisError when it cannot be reached."""
    facts = client.info()
    version = str(facts["redis_version"])
    wrong = []
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_REDIS:
        wrong.append(f"its version is {version}, which must be 6.2 or later")
    if facts["maxmemory_policy"] != "noeviction":
        wrong.append(f"maxmemory-policy is {facts['maxmemory_policy']}, which must be noeviction")
    if not facts["aof_enabled"]:
        wrong.append("appendonly is no, which must be yes")
    if wrong:
        raise UnfitRedis(f"this Redis would lose messages: {'; '.join(wrong)}")


def _for_redis_py(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "redis+socket":
        return url
    database = parse_qs(parts.query).get("virtual_host", ["0"])[0].strip("/") or "0"
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return f"unix://{user}{parts.path}?db={quote(database)}"
