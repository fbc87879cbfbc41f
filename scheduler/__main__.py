"""python -m scheduler: decides what runs where, until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
import sys
from threading import Event

import redis
import structlog

from scheduler.loop import Scheduler
from scheduler.sweeper import sweeping
from shared import logs
from shared.db.engine import make_engine
from shared.queue import UnfitRedis, check_redis, make_app, redis_client
from shared.settings import Settings, get_settings


def main() -> None:
    """Run until told to stop. A database or a queue that is away is waited for."""
    settings = get_settings()
    logs.configure(settings.log_level)
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    _check_queue(settings)
    engine = make_engine(settings.database_url.get_secret_value(), statement_timeout_s=10, pool_size=2)
    app = make_app(settings.redis_url.get_secret_value())
    with sweeping(engine, settings, stop):
        Scheduler(engine, app, settings).run(stop)
    engine.dispose()


def _check_queue(settings: Settings) -> None:
    """Refuse a Redis that would lose messages; one that is away is checked by the workers when it is back."""
    client = redis_client(settings.redis_url.get_secret_value())
    try:
        check_redis(client)
    except UnfitRedis as error:
        sys.exit(str(error))
    except redis.RedisError as error:
        structlog.stdlib.get_logger("scheduler").error("the queue is away", error=str(error))
    finally:
        client.close()


if __name__ == "__main__":
    main()
