"""The border to DuckDB: how its files are opened, and how its errors become ours.

Owns the two ways to open a file (both through an in-memory connection: `duckdb.connect(path)` hands back an older handle of the same
process) and the words by which a full disk, a held file and a damaged file are told apart. Knows neither tables nor the ledger.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb

from toolkit.errors import HomeUnusable, QueryInvalid
from toolkit.stats.tables import quoted

STORAGE_VERSION = "v1.2.0"  # read by every DuckDB since 1.2; the default of 2.0 is refused by 1.5.5 (tried)
CATALOG = "stats"
QUERIES = {"SELECT", "EXPLAIN", "MULTI"}  # FROM, VALUES, DESCRIBE, SHOW and SUMMARIZE are SELECT; MULTI is a PIVOT that looks for its columns


class Unreadable(HomeUnusable):
    """A file that holds no log, or not this one: it may be made anew from the ledger."""


def reading(path: Path) -> duckdb.DuckDBPyConnection:
    """A new in-memory connection on which the file at `path` is attached read-only; it keeps this version of the file.

    Raises:
        Unreadable: it is missing or damaged.
        HomeUnusable: the system does not let us read it.
    """
    with home_errors(path):
        connection = connected()
        attach(connection, path, CATALOG)
        connection.execute(f"USE {CATALOG}")
        return connection


@contextlib.contextmanager
def writing(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection on which the file at `path` is attached for writing, made if missing, closed at the end.

    Raises:
        Unreadable: it is damaged, as found when it was opened or read later.
        HomeUnusable: a full disk, or somebody else has it open.
    """
    with home_errors(path), contextlib.closing(connected()) as connection:
        attach(connection, path, CATALOG, f"STORAGE_VERSION {quoted(STORAGE_VERSION)}")
        connection.execute(f"USE {CATALOG}")
        yield connection


@contextlib.contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN")
    try:
        yield
    except BaseException:
        with contextlib.suppress(duckdb.Error):  # a commit that failed has rolled back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def relation(connection: duckdb.DuckDBPyConnection, query: str, parameters: dict[str, object]) -> duckdb.DuckDBPyRelation:
    """One query on a cursor of its own, so that no result blocks another; the relation keeps cursor and file open.

    Raises:
        QueryInvalid: more than one statement, one that is no query, or one that DuckDB refuses.
    """
    with query_errors():
        statement = _one_query(query)
        cursor = connection.cursor()
        cursor.execute(f"USE {CATALOG}")
        return cursor.sql(statement.query, params=parameters or None)


def _one_query(query: str) -> duckdb.Statement:
    statements = duckdb.extract_statements(query)
    if len(statements) != 1:
        raise QueryInvalid("The query is empty." if not statements else f"One statement at a time: these are {len(statements)}.", field="query")
    kind = statements[0].type.name
    if kind not in QUERIES:
        raise QueryInvalid(f"The log is read-only: {kind} is no query.", hint="Ask with FROM or SELECT; an export is yours to change.", field="query")
    return statements[0]


def attach(connection: duckdb.DuckDBPyConnection, path: Path, name: str, how: str = "READ_ONLY") -> None:
    """Make the file at `path` known as `name`; errors are DuckDB's own."""
    # by its type, or a SQLite file would make DuckDB look for an extension on the network
    connection.execute(f"ATTACH {quoted(str(path))} AS {name} (TYPE duckdb, {how})")


def connected() -> duckdb.DuckDBPyConnection:
    """An in-memory connection with nothing attached."""
    # without replacements, or a misspelt table would be looked up among the variables of this module
    connection = duckdb.connect(":memory:", config={"python_enable_replacements": False})
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


# ---- errors -----------------------------------------------------------------------------------------------------------------------------

FULL = ("No space left", "Disk quota exceeded", "File too large")
HELD = ("Could not set lock", "already attached")
FORBIDDEN = ("Permission denied", "Read-only file system", "Operation not permitted")
DAMAGED = (
    "not a valid DuckDB database", "Corrupt", "checksum", "Could not read enough bytes", "database does not exist", "newer version", "older version",
    "storage version", "deserialize", "Serialization Error",
)  # fmt: skip


@contextlib.contextmanager
def home_errors(path: Path) -> Iterator[None]:
    """DuckDB's and the system's errors about a file of the home become HomeUnusable, those about what is in it Unreadable."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise _home_error(error, path) from error


@contextlib.contextmanager
def query_errors() -> Iterator[None]:
    """DuckDB's errors about a query become QueryInvalid, with its text; also for whoever fetches the rows of a relation, which runs then.

    Raises:
        QueryInvalid: the query is at fault.
        Unreadable: the file is.
    """
    try:
        yield
    except duckdb.Error as error:
        if _is_damage(error):
            hint = "Remove stats.duckdb and stats.work.duckdb from the home: they are made anew from the ledger."
            raise Unreadable(f"The log is damaged: {without_paths(str(error))}.", path="stats.duckdb", hint=hint) from error
        raise QueryInvalid(without_paths(str(error)), field="query") from error


def _home_error(error: Exception, path: Path) -> HomeUnusable:
    text = str(error)
    if any(word in text for word in FULL):
        return HomeUnusable(f"The disk of {path.parent} is full.", path=str(path), hint="Make room; nothing is lost.")
    if any(word in text for word in HELD):
        return HomeUnusable(f"{path.name} is open in another program.", path=str(path), hint="Close it there; stats.duckdb is the one to read.")
    if any(word in text for word in FORBIDDEN):
        return HomeUnusable(f"{path.parent} does not let us read and write.", path=str(path), hint="Set TOOLKIT_HOME to a folder of yours.")
    damaged = isinstance(error, duckdb.InternalException | duckdb.FatalException) or any(word in text for word in DAMAGED)
    kind = Unreadable if damaged else HomeUnusable
    return kind(f"{path.name} cannot be used: {without_paths(text)}.", path=str(path), hint=f"Remove {path.name}: it is made anew from the ledger.")


def _is_damage(error: Exception) -> bool:
    """Whether a query failed at the bytes of a file; a wrong checksum is a bare duckdb.Error (tried on 2.0.0)."""
    of_files = isinstance(error, duckdb.IOException | duckdb.SerializationException) or type(error) is duckdb.Error
    return of_files and any(word in str(error) for word in DAMAGED)


PATHS = re.compile(r"""(["'])(?:[A-Za-z]:)?[/\\][^"'\n]*[/\\]([^"'/\\\n]+)\1|(?<![\w/:.])(?:/[\w.+@~-]+)+/([\w.+@~-]+)""")


def without_paths(text: str) -> str:
    """The text with every path of this machine cut to its last part; the query that DuckDB repeats after `LINE 1:` stays as it was typed."""
    said, line, query = text.partition("\nLINE ")
    return PATHS.sub(lambda found: f"{found[1]}{found[2]}{found[1]}" if found[1] else found[3], said) + line + query
