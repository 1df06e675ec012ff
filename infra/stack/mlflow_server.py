"""The MLflow server: one process, artifacts through the server; sqlite in its folder, or ``MLOPS_MLFLOW_DATABASE``.

``mlflow server`` imports MLflow, prepares the database, and starts four more processes that import it again. This is
the same application in the process that prepared the database: a third of the processor time and of the memory.

Passwords come in the environment (``MLFLOW_AUTH_ADMIN_PASSWORD``, and in the database's address), see
``environment.mlflow_server_environment``.
"""

from __future__ import annotations

import argparse
import os
import uuid
from pathlib import Path

from infra.stack.credentials import write_private
from infra.stack.identity import owned
from infra.stack.processes import MARK

# Only the administrator exists; whoever else may be added starts with no rights.
AUTH_CONFIG = """\
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = {database}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where artifacts live, and the database unless one is named")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--auth", action="store_true", help="ask for a password")
    serve(parser.parse_args())


def write_auth_config(database: str) -> None:
    """Write the file that ``MLFLOW_AUTH_CONFIG_PATH`` names; private, for the address may hold a password."""
    write_private(Path(os.environ["MLFLOW_AUTH_CONFIG_PATH"]), AUTH_CONFIG.format(database=database))


def serve(arguments: argparse.Namespace) -> None:
    folder: Path = arguments.folder
    (folder / "artifacts").mkdir(parents=True, exist_ok=True)
    named = os.environ.pop("MLOPS_MLFLOW_DATABASE", None)
    database = named or f"sqlite:///{folder / 'mlflow.db'}"

    from mlflow.server import constants

    # What `mlflow server` tells the application, in the variables that the application reads.
    os.environ.update(
        {
            constants.BACKEND_STORE_URI_ENV_VAR: database,
            constants.REGISTRY_STORE_URI_ENV_VAR: database,
            constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            constants.ARTIFACTS_DESTINATION_ENV_VAR: (folder / "artifacts").as_uri(),
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
            "_MLFLOW_SGI_NAME": "uvicorn",
            "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        }
    )

    import uvicorn
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(database, database, "mlflow-artifacts:/")
    if arguments.auth:
        # One database of Postgres holds both: each keeps the version of its tables in a table of its own.
        write_auth_config(named or f"sqlite:///{folder / 'auth.db'}")
        from mlflow.server.auth import bootstrap_admin_user, create_app

        bootstrap_admin_user()
        os.environ["_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED"] = "true"
        application = create_app()
    else:
        from mlflow.server.fastapi_app import app as application

    application = owned(application, os.environ.get(MARK))
    uvicorn.run(application, host=arguments.host, port=arguments.port, log_level="warning", timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
