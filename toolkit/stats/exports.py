"""Copies of the log for other tools: a DuckDB file, a folder of Parquet files, a CSV of the jobs.

Owns the suffixes and what each holds. Knows nothing of the ledger: what is published is what is exported.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb

from toolkit.errors import OutputError, RequestInvalid
from toolkit.stats.connections import FULL, without_paths
from toolkit.stats.tables import TABLES, quoted
from toolkit.stats.workfile import wal_of

SUFFIXES = (".duckdb", ".parquet", ".csv")


def checked(path: Path, home: Path) -> Path:
    """The absolute path, if its suffix is one we write and it is no file of the home's own.

    Raises:
        RequestInvalid: another suffix, or the home's own log.
    """
    target = path.expanduser().absolute()
    if target.suffix not in SUFFIXES:
        raise RequestInvalid(f"'{path.name}' is no export: end it in .duckdb, .parquet (a folder, one file a table) or .csv (the jobs).", field="path")
    if target.parent.resolve() == home.resolve() and target.name.startswith("stats."):
        raise RequestInvalid(f"'{path.name}' is the home's own log.", hint="Export to another name or folder.", field="path")
    return target


def write(connection: duckdb.DuckDBPyConnection, published: Path, target: Path) -> None:
    """Write the export that the suffix asks for, over an older one.

    Raises:
        OutputError: the disk is full, or the place cannot be written.
    """
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        match target.suffix:
            case ".duckdb":
                _copy(published, target)
            case ".parquet":
                target.mkdir(exist_ok=True)
                for table in TABLES:
                    file = target / f"{table.name}.parquet"
                    connection.execute(f"COPY {table.name} TO {quoted(str(file))} (FORMAT parquet, COMPRESSION zstd)")
            case _:
                connection.execute(f"COPY jobs TO {quoted(str(target))} (FORMAT csv, HEADER)")


def _copy(published: Path, target: Path) -> None:
    fresh = target.with_name(target.name + ".new")
    try:
        shutil.copyfile(published, fresh)
        wal_of(target).unlink(missing_ok=True)  # of an older export that somebody changed
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


@contextlib.contextmanager
def output_errors(target: Path) -> Iterator[None]:
    """DuckDB's and the system's errors about a file that is written become OutputError."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        full = any(word in str(error) for word in FULL)
        reason = "the disk is full" if full else getattr(error, "strerror", None) or without_paths(str(error))
        raise OutputError(f"{target} cannot be written: {reason}.", path=str(target), hint="Make room, or choose another place.") from error
