"""Brings a server's database up to date before the server starts: ``python -m infra.kubernetes.platform.migrate NAME``.

One process at a time: a pod whose node is silent may still run while its successor starts. The lock is Postgres's and
ends with the connection; both tools migrate inside a transaction, so a process that is killed leaves nothing half done.
A schema that is newer than the image is refused by Alembic, and left as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOCK = 4_711_042
"""Any number, the same for all of our processes: the key of the advisory lock in each database."""
AWAY_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=list(MIGRATIONS))
    name = parser.parse_args().server
    variable, migrate = MIGRATIONS[name]
    began = time.monotonic()
    with _alone(os.environ[variable].replace("+asyncpg", "").replace("+psycopg2", "")):
        migrate()
    print(f"the database of {name} is up to date after {time.monotonic() - began:.1f} s")


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Wait for Postgres and then for the lock, and hold it."""
    import psycopg2

    deadline = time.monotonic() + AWAY_S
    while True:
        try:
            connection = psycopg2.connect(url, connect_timeout=5)
            break
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"Postgres cannot be reached: {str(error).strip()}") from None
            time.sleep(1)
    connection.autocommit = True
    try:
        connection.cursor().execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        yield
    finally:
        connection.close()


def _prefect() -> None:
    from prefect.server.database import provide_database_interface

    asyncio.run(provide_database_interface().run_migrations_upgrade())


def _mlflow() -> None:
    from infra.stack.mlflow_server import write_auth_config

    database = os.environ["MLOPS_MLFLOW_DATABASE"]
    write_auth_config(database)  # read when the module below is imported

    from mlflow.server.auth.db.utils import migrate_if_needed
    from mlflow.store.db import utils

    # MLflow's own command does the same, and imports all of its command line first.
    engine = utils.create_sqlalchemy_engine_with_retry(database)  # type: ignore[no-untyped-call]
    utils._safe_initialize_tables(engine)
    utils._upgrade_db(engine)  # type: ignore[no-untyped-call]
    migrate_if_needed(engine, "head")


MIGRATIONS = {
    "prefect": ("PREFECT_SERVER_DATABASE_CONNECTION_URL", _prefect),
    "mlflow": ("MLOPS_MLFLOW_DATABASE", _mlflow),
}

if __name__ == "__main__":
    main()
