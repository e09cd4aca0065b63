"""docs/tables.md from the tables themselves: `python -m tests.tables_page` writes it, tests/test_docs.py holds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from toolkit.analysis.questions import questions
from toolkit.stats.tables import TABLES, VIEWS

PAGE = Path(__file__).parents[1] / "docs" / "tables.md"
HEAD = """# The tables of the log

Written by `python -m tests.tables_page`, from the same words that the file carries as comments: in any tool,
`from duckdb_columns() select column_name, data_type, comment where table_name = 'jobs'` says the same.
NULL is unknown. Times are UTC instants; durations are in seconds."""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_tables(), *_questions()]) + "\n"


def _tables() -> Iterator[str]:
    for table in (*TABLES, *VIEWS):
        yield f"\n## {table.name}\n\n{'View: ' if table.query else ''}{table.meaning}\n\n| column | type | unit | meaning |\n|---|---|---|---|"
        for column in table.columns:
            yield f"| {column.name} | {column.type} | {column.unit} | {column.meaning.replace('|', chr(92) + '|')} |"


def _questions() -> Iterator[str]:
    yield "\n## Questions\n\n`studio.ask(name)`, `toolkit ask NAME`; `.sql` of an answer, or `toolkit ask NAME --sql`, is its SQL."
    yield "\n| name | question |\n|---|---|"
    for question in questions().values():
        yield f"| {question.name} | {question.sentence} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
