"""The logs of several homes in one file, with the same tables, views and comments.

Owns which log tells of a job that several have (a home that was copied), and how the rows of a server that several have seen become one. Knows
files, no ledger: who calls has them published.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import duckdb

from toolkit.errors import HomeUnusable
from toolkit.stats.connections import STORAGE_VERSION, Unreadable, attach, connected, home_errors
from toolkit.stats.exports import output_errors
from toolkit.stats.tables import SCHEMA, TABLES, quoted, statements
from toolkit.stats.workfile import wal_of

# the log that has seen most of a job: it ended there, with more attempts, more judgements, later; of equal ones the first that was named
CHOSEN = """CREATE TEMP TABLE chosen AS SELECT DISTINCT ON (job_id) job_id, place FROM ({every})
    ORDER BY job_id, ended_at IS NULL, attempts DESC, judged DESC, ended_at DESC, place"""
JOBS_OF = """SELECT {place} AS place, job_id, attempts, ended_at,
    (SELECT count(*) FROM log_{place}.ratings WHERE ratings.job_id = jobs.job_id) AS judged FROM log_{place}.jobs"""


def merge(logs: Sequence[Path], target: Path) -> int:
    """Write the logs into one file, over an older one; returns how many jobs it has.

    Raises:
        HomeUnusable: one of them is no log, damaged, or of another version of the toolkit. OutputError: the target cannot be written.
    """
    fresh = target.with_name(target.name + ".new")
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            fresh.unlink(missing_ok=True)
            with contextlib.closing(connected()) as connection:
                jobs = _fill(connection, logs, fresh)
            wal_of(target).unlink(missing_ok=True)
            os.replace(fresh, target)
        finally:
            fresh.unlink(missing_ok=True)
    return jobs


def _fill(connection: duckdb.DuckDBPyConnection, logs: Sequence[Path], fresh: Path) -> int:
    attach(connection, fresh, "merged", f"STORAGE_VERSION {quoted(STORAGE_VERSION)}")
    for place, path in enumerate(logs):
        _attach_log(connection, path, f"log_{place}")
    connection.execute("USE merged")
    for statement in statements():
        connection.execute(statement)
    connection.execute(CHOSEN.format(every=" UNION ALL ".join(JOBS_OF.format(place=place) for place in range(len(logs)))))
    for table in TABLES:
        for place in range(len(logs)) if table.of_jobs else ():
            mine = f"job_id IN (SELECT job_id FROM chosen WHERE place = {place})"
            connection.execute(f"INSERT INTO {table.name} FROM log_{place}.{table.name} WHERE {mine}")
    connection.execute(f"INSERT INTO servers BY NAME {_servers(len(logs))}")
    connection.execute("INSERT INTO meta VALUES ('merged', $schema, 0)", {"schema": SCHEMA})
    connection.execute("CHECKPOINT merged")
    return int(connection.execute("SELECT count(*) FROM jobs").fetchall()[0][0])


def _attach_log(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    try:
        with home_errors(path):
            attach(connection, path, name)
            found = connection.execute(f"SELECT schema FROM {name}.meta").fetchall()
    except HomeUnusable as error:
        if not isinstance(error, Unreadable) and not isinstance(error.__cause__, duckdb.CatalogException | duckdb.BinderException):
            raise
        raise HomeUnusable(f"{path} is no log of this toolkit, or damaged.", path=str(path)) from error
    if found != [(SCHEMA,)]:
        hint = "Open its home with this version of the toolkit once, e.g. `toolkit --home HOME ask`."
        raise HomeUnusable(f"{path} was published by another version of the toolkit.", path=str(path), hint=hint)


def _servers(logs: int) -> str:
    """One row a configuration: first seen by any, last by any, the owner's words as they were said last."""
    columns = next(table for table in TABLES if table.name == "servers").columns
    latest = ("name", "price_per_hour")
    folded = {"first_seen_at": "min(first_seen_at)", "last_seen_at": "max(last_seen_at)"}
    folded |= {name: f"arg_max({name}, server.last_seen_at)" for name in latest}
    shown = [f"{folded.get(column.name, f'any_value({column.name})')} AS {column.name}" for column in columns[2:]]
    every = " UNION ALL ".join(f"FROM log_{place}.servers" for place in range(logs))
    return f"SELECT environment_id, server_url, {', '.join(shown)} FROM ({every}) AS server GROUP BY environment_id, server_url"
