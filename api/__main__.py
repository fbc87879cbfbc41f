"""Serve the API: `python -m api --host 0.0.0.0 --port 8000`."""

from __future__ import annotations

import argparse

import uvicorn

from api.main import create_app
from shared.settings import get_settings

# An open event stream would hold a shutdown for ever.
_SHUTDOWN_S = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default %(default)s)")
    arguments = parser.parse_args()
    settings = get_settings()
    uvicorn.run(
        create_app(settings),
        host=arguments.host,
        port=arguments.port,
        log_level=settings.log_level.lower(),
        timeout_graceful_shutdown=_SHUTDOWN_S,
        server_header=False,
    )


if __name__ == "__main__":
    main()
