"""The SQL console: somebody's query on the published log, answered by a process of its own that is ended when it takes too long.

Owns how long, how many rows and how many at once. What a query may reach is the child's (sandbox.py). Unlike `Stats.sql`, which is the owner's
own notebook, nothing a query does can hold up or harm the process that asks.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from toolkit.errors import QueryInvalid
from toolkit.processes import answer_of
from toolkit.stats.log import Stats

WALL_S = 4.0  # with the start of the child
ROWS, BYTES = 10_000, 2_000_000
AT_ONCE = 2
CHILD = Path(__file__).with_name("sandbox.py")
NO_FILES = ("disabled by configuration", "disabled through configuration")

_turns = threading.BoundedSemaphore(AT_ONCE)


def console(stats: Stats, query: str, *, rows: int = ROWS, size: int = BYTES, wall_s: float = WALL_S) -> dict[str, Any]:
    """One statement that reads, on the log as it is now.

    Args:
        stats: the log, published first if it is behind.
        query: SELECT, FROM, WITH, EXPLAIN and the like.
        rows: at most so many are returned.
        size: at most so many bytes of JSON.
        wall_s: seconds after which it is stopped.

    Returns:
        `columns`, `types`, `rows`, `truncated` if there was more or a value was cut, `elapsed_s`.

    Raises:
        QueryInvalid: DuckDB's text with position and candidates and no path of this machine; or that it was stopped.
        HomeUnusable: the log cannot be published.
    """
    stats.publish()
    asked = json.dumps({"query": query, "rows": rows, "bytes": size, "wall_s": wall_s}).encode()
    if not _turns.acquire(timeout=wall_s):
        raise QueryInvalid(f"{AT_ONCE} queries run already.", hint="Ask again in a moment.", field="query")
    try:
        said = answer_of([str(CHILD), str(stats.path)], asked, wall_s)
    finally:
        _turns.release()
    if said is None:
        hint = "Ask for less: a condition, a `limit`, or `using sample 10000`."
        raise QueryInvalid(f"The query was stopped after {wall_s:g} s.", hint=hint, field="query")
    answer: dict[str, Any] = json.loads(said or b'{"refused": "The query needs more memory than it may have."}')
    if "refused" in answer:
        raise _refused(answer["refused"])
    return answer


def _refused(said: str) -> QueryInvalid:
    from toolkit.stats.connections import without_paths

    if any(words in said for words in NO_FILES):
        return QueryInvalid("The console reads no files and no network.", hint="`show tables` lists what can be asked.", field="query")
    return QueryInvalid(without_paths(said), field="query")
