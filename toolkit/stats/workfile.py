"""The working file: brought up to the ledger's revision under a lock, then exchanged for the published one.

Owns what is deleted and appended, the stamp that says what a file covers, and the exchange. Rows and stamp change in one
transaction, so a killed publisher leaves a whole older state and the next one goes on from there. It is made anew only when it cannot
be read or is not of this ledger and schema; a full disk leaves both files as they are.

The log of a million jobs is a gigabyte, and copying it for each thousand new ones would take longer than writing them. So two files take
turns: the one that was published before is the next to be written, a version behind. A reader that still holds it keeps it: then, and only
then, it is copied, and the copy is written.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from toolkit.errors import HomeUnusable
from toolkit.jobs import IN_FLIGHT
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


def prepare(work: Path, published: Path, *, usable: bool) -> None:
    """See to it that there is a working file that may be written, if any can be had without reading the whole ledger.

    Args:
        work: the file that is written next; whoever still reads it, from when it was the published one, keeps it.
        published: taken where there is no working file.
        usable: whether the published one is of this ledger and schema.

    Raises:
        HomeUnusable: the disk is full or the folder read-only.
    """
    with home_errors(work):
        work.with_name("stats.new.duckdb").unlink(missing_ok=True)  # of a publisher that was killed
        if work.exists():
            if not wal_of(work).exists() and is_held(work):  # with a .wal it is somebody's who writes, and opening it will say so
                _place_copy(work, work, 0o644)
            else:
                work.chmod(work.stat().st_mode | 0o200)
        elif usable:  # a publisher was killed between the two steps of an exchange
            _place_copy(published, work, 0o644)


def replace_published(work: Path, published: Path, *, usable: bool) -> None:
    """Put the closed working file in the place of the published one, which becomes the working file; readers see the old or the new, both whole.

    Args:
        work: brought up to date.
        published: the file that all read.
        usable: whether the published one can be gone on with; otherwise the working file stays and is copied.

    Raises:
        HomeUnusable: the disk is full or the folder read-only; the old file is then still there.
    """
    older = published.with_name("stats.old.duckdb")
    with home_errors(published):
        older.unlink(missing_ok=True)  # of a publisher that was killed
        wal_of(published).unlink(missing_ok=True)  # left by a program that opened the published file to write
        if not (usable and _linked(published, older)):
            _place_copy(work, published, 0o444)
            return
        work.chmod(0o444)
        os.replace(work, published)
        os.replace(older, work)


def is_held(path: Path) -> bool:
    """Whether anybody has the file open, ourselves included: the kernel grants a write lease only if nobody has (fcntl(2), F_SETLEASE).

    True where that cannot be known. DuckDB's own locks do not tell: a process drops them when it closes any other handle of the file.
    """
    if sys.platform != "linux":
        return True
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return True
    return False


def _place_copy(source: Path, target: Path, mode: int) -> None:
    fresh = target.with_name("stats.new.duckdb")
    try:
        shutil.copyfile(source, fresh)
        fresh.chmod(mode)
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


def _linked(path: Path, other: Path) -> bool:
    """Give a file a second name, where the file system can."""
    try:
        os.link(path, other)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


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
        revision_before = revision
        seen = ledger.revision()  # a job that changes after this has a higher one, and says nothing of what lies between
        history = ledger.history_since(revision, BATCH)
        covered = max((job.revision for job, _ in history if job.revision <= seen), default=revision)
        revision = covered if len(history) >= BATCH else seen
        gone = ledger.deleted_since(revision_before)
        with transaction(connection):
            ids = [job.id for job, _ in history]
            _replace_jobs(connection, [*ids, *gone], rows.history_rows(history, ledger.ratings(ids)))
            connection.execute("DELETE FROM servers")
            _append(connection, "servers", rows.server_rows(ledger.environments()))
            connection.execute("UPDATE meta SET revision = $revision", {"revision": revision})


def _replace_jobs(connection: duckdb.DuckDBPyConnection, ids: list[str], found: rows.Rows) -> None:
    """Take out what the file has of these jobs, and no more is looked for than it can have: among a million jobs each table costs a walk."""
    known = connection.execute("SELECT job_id, attempts, status FROM jobs WHERE job_id IN (SELECT unnest($ids))", {"ids": ids}).fetchall()
    gone = {"jobs": known, "attempts": [job for job in known if job[1]]}
    ended = [job for job in known if job[1] > (job[2] in IN_FLIGHT)]  # nodes, files and predictions come with the end of an attempt
    for table in TABLES:
        old = gone.get(table.name, ended)
        if table.of_jobs and old:
            connection.execute(f"DELETE FROM {table.name} WHERE job_id IN (SELECT unnest($ids))", {"ids": [job_id for job_id, _, _ in old]})
    for name, values in found.items():
        _append(connection, name, values)


def _append(connection: duckdb.DuckDBPyConnection, table: str, values: Sequence[Sequence[Any]]) -> None:
    if values:
        appender = connection.appender(table)
        appender.append_rows(values)
        appender.flush()
