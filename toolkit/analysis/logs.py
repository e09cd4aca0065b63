"""A log in a file of its own: exported from a home, merged from several, or the sample that comes with the project.

Owns that such a log is asked as a home is, and that its "now" is when its last job ended: a question of this week is about its last week.
"""

from __future__ import annotations

from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any

from toolkit.analysis.answer import Answer, ask
from toolkit.errors import RequestInvalid


class Log:
    """A .duckdb file that `studio.export` or `toolkit log merge` wrote, or a home's stats.duckdb: read-only, no home and no server needed."""

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open it.

        Raises:
            RequestInvalid: it is not there, or no log. HomeUnusable: the system does not let us read it.
        """
        from toolkit.stats.connections import Unreadable, reading
        from toolkit.stats.workfile import stamp_of

        self.path = Path(path).expanduser().absolute()
        if not self.path.is_file():
            raise RequestInvalid(f"{self.path} is not there.", field="log")
        try:
            self._connection = reading(self.path)
            found = stamp_of(self._connection)
        except Unreadable:
            found = None
        if found is None:
            raise RequestInvalid(f"{self.path.name} is no log.", hint="Name a .duckdb file that studio.export wrote.", field="log")

    def sql(self, query: str, **parameters: Any) -> Any:
        """Ask in SQL; `$name` in the query takes a parameter. Returns DuckDB's relation: `.df()`, `.fetchall()`.

        Raises:
            QueryInvalid: with DuckDB's own text.
        """
        from toolkit.stats.connections import relation

        return relation(self._connection, query, parameters)

    def ask(self, question: str = "help", /, **where: Any) -> Answer:
        """Ask a question by its name, as `studio.ask` does; "help" lists them.

        Raises:
            RequestInvalid: no such question or column, with the nearest one, or a value that cannot be read.
        """
        return ask(self, question, where, self.ends_at)

    @property
    def ends_at(self) -> datetime | None:
        """When the last job of this log ended; None if it has none."""
        found: datetime | None = self.sql("select max(coalesce(ended_at, created_at)) from jobs").fetchall()[0][0]
        return found

    def __repr__(self) -> str:
        jobs, began, ended = self.sql("select count(*), min(created_at)::date, max(created_at)::date from jobs").fetchall()[0]
        return f"log {self.path.name}: {jobs} jobs, {began} to {ended}"
