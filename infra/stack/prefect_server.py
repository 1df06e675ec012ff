"""The Prefect server as a child of the stack; what it is comes from ``environment.prefect_server_environment``.

``prefect server start`` serves the same application, after importing the whole command line.
"""

from __future__ import annotations

import os

from infra.stack.identity import owned
from infra.stack.processes import MARK


def main() -> None:
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    api = get_current_settings().server.api
    uvicorn.run(
        owned(create_app(final=True), os.environ.get(MARK)),
        host=api.host,
        port=api.port,
        timeout_keep_alive=api.keepalive_timeout,
        # Pages and workers hold connections open: they must not keep the server from stopping.
        timeout_graceful_shutdown=3,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
