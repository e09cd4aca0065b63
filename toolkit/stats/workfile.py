"""The working file: brought up to the ledger's revision under a lock, then copied over the published one.

Owns what is deleted and appended, the stamp that says what a file covers, and the replacement. Rows and stamp change in one
transaction, so a killed publisher leaves a whole older state and the next one goes on from there. It is made anew only when it cannot
be read or is not of this ledger and schema; a full disk leaves both files as they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from toolkit.errors import HomeUnusable
from toolkit.ledger.store import Ledger
from toolkit.stats import rows
from toolkit.stats.connections import Unreadable, home_errors, transaction, writing
from toolkit.stats.tables import SCHEMA, TABLES, statements

BATCH = 5000  # jobs a transaction: some 30 MB of rows


class Stamp(NamedTuple):
    """What a file was made from."""

    ledger_id: str
    schema: str
    revision: int


def stamp_of(connection: duckdb.DuckDBPyConnection) -> Stamp | None:
    """The stamp of the attached file; None if it is no file of ours."""
    try:
        found = connection.execute("SELECT ledger_id, schema, revision FROM meta").fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):
        return None
    return Stamp(*found[0]) if found else None


def bring_up_to_date(path: Path, ledger: Ledger) -> None:
    """Copy into the working file what changed in the ledger since its stamp, from the start if it is of no use.

    Raises:
        HomeUnusable: the disk is full, or another program has the file open.
    """
    try:
        _update(path, ledger)
    except Unreadable:
        _discard(path)
        _update(path, ledger)


def replace_published(work: Path, published: Path) -> None:
    """Put a copy of the closed working file in the place of the published one; readers see the old or the new, both whole.

    Raises:
        HomeUnusable: the disk is full or the folder read-only; the old file is then still there.
    """
    fresh = published.with_name("stats.new.duckdb")
    with home_errors(published):
        fresh.unlink(missing_ok=True)  # of a publisher that was killed; read-only, so it cannot be written over
        try:
            shutil.copyfile(work, fresh)
            fresh.chmod(0o444)
            wal_of(published).unlink(missing_ok=True)  # left by a program that opened the published file to write
            os.replace(fresh, published)
        finally:
            fresh.unlink(missing_ok=True)


def wal_of(path: Path) -> Path:
    """DuckDB's write-ahead log of a file."""
    return path.with_name(path.name + ".wal")


def _update(path: Path, ledger: Ledger) -> None:
    fresh = not path.exists()
    if fresh:
        _discard(path)
    with writing(path) as connection:
        if fresh:
            _create(connection, ledger)
        stamp = stamp_of(connection)
        if stamp is None or stamp[:2] != (ledger.id, SCHEMA) or stamp.revision > ledger.revision():
            raise Unreadable(f"{path.name} is not of this ledger and schema.", path=str(path))
        _catch_up(connection, ledger, stamp.revision)
        connection.execute("CHECKPOINT")
    if wal_of(path).exists():
        raise HomeUnusable(f"{path.name} could not be closed: its .wal is still there.", path=str(path), hint="Try again.")


def _discard(path: Path) -> None:
    with home_errors(path):
        path.unlink(missing_ok=True)
        wal_of(path).unlink(missing_ok=True)


def _create(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    with transaction(connection):
        for statement in statements():
            connection.execute(statement)
        connection.execute("INSERT INTO meta VALUES ($id, $schema, 0)", {"id": ledger.id, "schema": SCHEMA})


def _catch_up(connection: duckdb.DuckDBPyConnection, ledger: Ledger, revision: int) -> None:
    """Batch by batch, until all is copied that the ledger had when this began."""
    goal = ledger.revision()
    while revision < goal:
        seen = ledger.revision()  # a job that changes after this has a higher one, and says nothing of what lies between
        history = ledger.history_since(revision, BATCH)
        covered = max((job.revision for job, _ in history if job.revision <= seen), default=revision)
        revision = covered if len(history) >= BATCH else seen
        with transaction(connection):
            _replace_jobs(connection, [job.id for job, _ in history], rows.history_rows(history))
            connection.execute("DELETE FROM servers")
            _append(connection, "servers", rows.server_rows(ledger.environments()))
            connection.execute("UPDATE meta SET revision = $revision", {"revision": revision})


def _replace_jobs(connection: duckdb.DuckDBPyConnection, ids: list[str], found: rows.Rows) -> None:
    for table in TABLES:
        if table.of_jobs:
            connection.execute(f"DELETE FROM {table.name} WHERE job_id IN (SELECT unnest($ids))", {"ids": ids})
    for name, values in found.items():
        _append(connection, name, values)


def _append(connection: duckdb.DuckDBPyConnection, table: str, values: Sequence[Sequence[Any]]) -> None:
    if values:
        appender = connection.appender(table)
        appender.append_rows(values)
        appender.flush()
