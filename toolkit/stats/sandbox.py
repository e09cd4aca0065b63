"""The SQL console's child: one query on one file, in a process that can do nothing else and is killed when it takes too long.

Run by its path, so that it starts with duckdb alone (a quarter of a second): it imports nothing of the toolkit, and knows neither home nor
token. What a query can reach is decided here: one read-only file; no other, no network, no setting. In-process limits do not hold: a query that
allocates in one function cannot be interrupted, and was seen to take 20 GB and 50 s under a limit of 256 MB (DuckDB 2.0.0), so the system holds
them. On Windows only DuckDB's own and the clock do.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import sys
import time
from typing import Any

import duckdb

MEMORY_MB = 384
ALL_MB = 520  # of the whole process; the pages of duckdb's own code come on top
CELL = 20_000  # characters of a text, entries of a list
EXACT_IN_JAVASCRIPT = 2**53
CONFIG: dict[str, Any] = {
    "threads": "1", "memory_limit": f"{MEMORY_MB}MB", "temp_directory": "", "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
}  # fmt: skip
LOCKED = (
    "SET GLOBAL TimeZone = 'UTC'",
    "ATTACH '{file}' AS stats (READ_ONLY)",
    "USE stats",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)
READS = {"SELECT", "EXPLAIN", "MULTI"}  # FROM, VALUES, DESCRIBE, SHOW and SUMMARIZE are SELECT; MULTI is a PIVOT that looks for its columns
EXPLAIN = re.compile(r"\s*explain(\s+analyze|\s*\([^)]*\))?\s", re.IGNORECASE)


def main() -> None:
    """Read `{query, rows, bytes, wall_s}` from stdin and answer with one JSON object; `{refused}` is a sentence for who asked."""
    asked = json.load(sys.stdin)
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(asked["wall_s"]) + 1)  # should nobody be left to end us
    connection = opened(sys.argv[1])
    limit_memory()
    sys.stdout.write(said(connection, sys.argv[1], asked))
    sys.stdout.flush()
    os._exit(0)  # what is left to free is the system's


def said(connection: duckdb.DuckDBPyConnection, path: str, asked: dict[str, Any]) -> str:
    """The answer as JSON; where the file lies is left out: duckdb_databases() and its like know it, and answers are shown around."""
    try:
        answer = answered(connection, asked)
    except (duckdb.OutOfMemoryException, MemoryError):
        answer = {"refused": f"The query needs more memory than the {MEMORY_MB} MB it may have."}
    except duckdb.Error as error:
        answer = {"refused": str(error)}
    return json.dumps(answer).replace(json.dumps(os.path.dirname(path) + os.sep)[1:-1], "")


def opened(path: str) -> duckdb.DuckDBPyConnection:
    """The file, read-only, and nothing else from here on."""
    connection = duckdb.connect(":memory:", config=CONFIG)
    for statement in LOCKED:
        connection.execute(statement.format(file=path.replace("'", "''")))
    return connection


def limit_memory() -> None:
    """Let the system refuse more memory, where it can: writable pages, not address space, of which malloc reserves a lot and uses little."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (ALL_MB * 2**20, ALL_MB * 2**20))


def answered(connection: duckdb.DuckDBPyConnection, asked: dict[str, Any]) -> dict[str, Any]:
    """Columns, types and rows, as many as are allowed."""
    statements = duckdb.extract_statements(asked["query"])
    wrong = fault_of(statements)
    if wrong:
        return {"refused": wrong}
    began = time.monotonic()
    result = connection.execute(statements[0].query)
    about = [(str(column[0]), str(column[1])) for column in result.description]
    rows, room, is_cut = list[Any](), asked["bytes"], False
    while room > 0 and len(rows) <= asked["rows"] and (found := result.fetchmany(100)):
        for row in found:
            shown = [plain(value) for value in row]
            is_cut |= any(was_cut for _, was_cut in shown)
            values = [value for value, _ in shown]
            room -= len(json.dumps(values))
            if room < 0:
                break
            rows.append(values)
    is_cut |= room <= 0 or len(rows) > asked["rows"]
    elapsed = round(time.monotonic() - began, 3)
    columns, types = [name for name, _ in about], [kind for _, kind in about]
    return {"columns": columns, "types": types, "rows": rows[: asked["rows"]], "truncated": is_cut, "elapsed_s": elapsed}


def fault_of(statements: list[duckdb.Statement]) -> str | None:
    """Why these are not one statement that reads, by DuckDB's own parser."""
    if len(statements) != 1:
        return "The query is empty." if not statements else f"One statement at a time: these are {len(statements)}."
    kind = statements[0].type.name
    if kind == "EXPLAIN":
        begun = EXPLAIN.match(statements[0].query)
        if begun is None:
            return "Write EXPLAIN first, without a comment before it."
        return fault_of(duckdb.extract_statements(statements[0].query[begun.end() :]))
    return None if kind in READS else f"This is a read-only console: {kind} is refused."


def plain(value: Any) -> tuple[Any, bool]:
    """A value in JSON, and whether it was cut: times in ISO 8601, whole numbers JavaScript cannot hold as texts, bytes in hexadecimal."""
    match value:
        case None | bool():
            return value, False
        case int():
            return (value if abs(value) <= EXACT_IN_JAVASCRIPT else str(value)), False
        case float():
            return (value if math.isfinite(value) else None), False
        case str():
            return value[:CELL], len(value) > CELL
        case bytes():
            return value[: CELL // 2].hex(), len(value) > CELL // 2
        case list() | tuple():
            shown = [plain(entry) for entry in value[:CELL]]
            return [entry for entry, _ in shown], len(value) > CELL or any(was_cut for _, was_cut in shown)
        case dict():
            entries = {str(name): plain(entry) for name, entry in value.items()}
            return {name: entry for name, (entry, _) in entries.items()}, any(was_cut for _, was_cut in entries.values())
        case _:
            return (value.isoformat() if hasattr(value, "isoformat") else str(value)), False


if __name__ == "__main__":
    main()
