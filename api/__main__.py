"""Serve the API: `python -m api --host 0.0.0.0 --port 8000`."""

from __future__ import annotations

import argparse

import uvicorn

from api.connections import BoundedHttp
from api.main import create_app
from api.warming import warm_up
from shared.logs import configure
from shared.settings import get_settings

# An open event stream would hold a shutdown for ever.
_SHUTDOWN_S = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m api", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default %(default)s)")
    arguments = parser.parse_args()
    settings = get_settings()
    configure(settings.log_level)
    app = create_app(settings)
    warm_up(app.state.parts)
    uvicorn.run(
        app,
        host=arguments.host,
        port=arguments.port,
        http=BoundedHttp,
        ws="none",
        log_config=None,
        access_log=False,  # the middleware writes a line a request, with its id
        timeout_graceful_shutdown=_SHUTDOWN_S,
        server_header=False,
    )


if __name__ == "__main__":
    main()
