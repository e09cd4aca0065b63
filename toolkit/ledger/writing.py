"""The statements that every write of the ledger is made of. Owns that a change of a job raises its revision; knows no rule."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any


def next_revision(connection: sqlite3.Connection) -> int:
    """The revision of what this transaction changes."""
    return int(connection.execute("UPDATE counter SET revision = revision + 1 RETURNING revision").fetchone()[0])


def insert(connection: sqlite3.Connection, table: str, values: Mapping[str, Any], conflict: str = "") -> None:
    """One row; `conflict` is e.g. OR IGNORE."""
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT {conflict} INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))


def update(connection: sqlite3.Connection, table: str, where: str, key: tuple[Any, ...], values: Mapping[str, Any]) -> None:
    """Set these columns where the condition holds."""
    if values:
        connection.execute(f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in values)} WHERE {where}", (*values.values(), *key))


def update_job(connection: sqlite3.Connection, job_id: str, **values: Any) -> None:
    """Set these columns of a job, which raises its revision."""
    update(connection, "jobs", "id = ?", (job_id,), {**values, "revision": next_revision(connection)})
