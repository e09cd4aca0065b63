"""Answer, a question answered, and `ask`, which answers it.

Owns what an answer shows of itself as text and in a notebook: question, table, SQL. Knows nothing of the questions but their table; how a
chart is drawn is charts.py's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from html import escape
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from toolkit.analysis.questions import Question, narrowed, question
from toolkit.stats import Stats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS_SHOWN = 20
SEARCH = """contains(lower(concat_ws(' ', prompt, model, group_name, outputs.name, array_to_string(list_transform(loras, lambda used: used.name), ' '))),
  lower($search_for))"""
GALLERY = Question("gallery", "What was made?", """from jobs join outputs using (job_id) select job_id, output
where not simulated and not temporary and disk = 'present' and outputs.kind in ('image', 'video')/* and more */
order by stored_at desc, job_id, output limit $at_most""")  # fmt: skip
NOW = "now()"  # in a question's text
Style: TypeAlias = Literal["light", "dark"]


class Askable(Protocol):
    """A log: a home's, or a file."""

    def sql(self, query: str, **parameters: Any) -> Any:
        """DuckDB's relation of a query."""


@dataclass(frozen=True)
class Answer:
    """A question answered: a table, its SQL, a plot. Last line of a cell: the table."""

    name: str
    question: str
    sql: str
    parameters: Mapping[str, Any]
    """Values of `$name` in the SQL: `studio.sql(answer.sql, **answer.parameters)` asks the same again."""
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]] = field(repr=False)
    note: str | None = None
    _relation: Any = field(default=None, repr=False, compare=False)

    def df(self) -> Any:
        """The table as a pandas DataFrame, times in UTC."""
        from toolkit.stats.connections import query_errors

        with query_errors():
            return self._relation.df()

    def plot(self, style: Style | None = None) -> Figure:
        """The chart of this question: a matplotlib Figure that shows itself in a notebook, on a transparent ground.

        Args:
            style: ink for a "light" or a "dark" page; None: one that can be read on both.

        Returns:
            A Figure of its own, unknown to pyplot; `.savefig(path)` writes it. One without rows says so in words.
        """
        from toolkit.analysis.charts import draw

        return draw(self.name, self.question, self.records(), style, self.note)

    @property
    def listing(self) -> str:
        """The SQL, the values of its parameters behind it as comments."""
        return self.sql + "".join(f"\n-- ${name} = {json.dumps(value, default=str)}" for name, value in self.parameters.items())

    def records(self) -> list[dict[str, Any]]:
        """The rows as dictionaries."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        lines = [self.question, "", *(self._table() if self.rows else [self._empty()])]
        return "\n".join(lines + self._rest())

    def _repr_html_(self) -> str:
        head = f"<strong>{escape(self.question)}</strong>"
        body = self._html_table() if self.rows else f"<p>{escape(self._empty())}</p>"
        rest = "".join(f"<div>{escape(line)}</div>" for line in self._rest() if line)
        return (
            f'<div class="toolkit-answer">{head}{body}{rest}<details><summary>SQL</summary>'
            f'<pre style="white-space:pre-wrap">{escape(self.listing)}</pre></details></div>'
        )

    def _table(self) -> list[str]:
        """Columns of equal width, numbers to the right."""
        cells = [list(self.columns), *([shown(value) for value in row] for row in self.rows[:ROWS_SHOWN])]
        widths = [max(len(row[place]) for row in cells) for place in range(len(self.columns))]
        right = [_is_number_column(self.rows, place) for place in range(len(self.columns))]
        aligned = ([cell.rjust(width) if to else cell.ljust(width) for cell, width, to in zip(row, widths, right, strict=True)] for row in cells)
        return ["  ".join(row).rstrip() for row in aligned]

    def _html_table(self) -> str:
        right = [' style="text-align:right"' if _is_number_column(self.rows, place) else ' style="text-align:left"' for place in range(len(self.columns))]
        head = "".join(f"<th{align}>{escape(name)}</th>" for name, align in zip(self.columns, right, strict=True))
        rows = (
            "".join(f"<td{align}>{escape(shown(value))}</td>" for value, align in zip(row, right, strict=True)) for row in self.rows[:ROWS_SHOWN]
        )  # fmt: skip
        return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"

    def _empty(self) -> str:
        return f"No rows. {self.note}" if self.note else "No rows."

    def _rest(self) -> list[str]:
        return ["", f"The first {ROWS_SHOWN} of {len(self.rows)} rows; .df() has all."] if len(self.rows) > ROWS_SHOWN else []


def ask(stats: Askable, name: str, where: Mapping[str, Any], now: datetime | None = None) -> Answer:
    """Answer a named question from the log.

    Args:
        stats: the log.
        name: the question's; "help" lists them.
        where: what the jobs must be, see `questions.narrowed`.
        now: when "now" is, in the question and for a duration in `since`; None: the clock.

    Raises:
        RequestInvalid: no such question or column, with the nearest one, or a value that cannot be read.
        HomeUnusable: the log cannot be published or read.
    """
    from toolkit.stats.connections import query_errors

    asked = question(name)
    sql, parameters = narrowed(asked, where, now or datetime.now(UTC))
    if now is not None and NOW in sql:
        sql, parameters = sql.replace(NOW, "$now"), {**parameters, "now": now}
    with query_errors():
        relation = stats.sql(sql, **parameters)
        columns, rows = list(relation.columns), relation.fetchall()
    left_out = asked.leaves_out_simulated and "simulated" not in where
    note = "Runs of the built-in engine are left out; simulated=True takes them in." if left_out and not rows else None
    return Answer(asked.name, asked.sentence, sql, parameters, columns, rows, note, relation)


def outputs_where(
    stats: Stats, which: Mapping[str, Any], *, verdict: str | None = None, search: str | None = None, where: str | None = None, limit: int = 200
) -> list[tuple[str, int]]:
    """Job id and number of the pictures and clips that are on disk and fit, newest first; `which` is as for `ask`.

    Raises:
        RequestInvalid: no such column, with the nearest one. QueryInvalid: `where` is no condition, in DuckDB's words.
    """
    from toolkit.stats.connections import query_errors

    sql, parameters = narrowed(GALLERY, which, datetime.now(UTC))
    asked = {"verdict_is": ("verdict = $verdict_is", verdict), "search_for": (SEARCH, search), "at_most": ("", limit)}
    conditions = [condition for condition, value in asked.values() if condition and value is not None] + ([f"({where})"] if where else [])
    given = {name: value for name, (_, value) in asked.items() if value is not None}
    sql = sql.replace("/* and more */", "".join(f" and {condition}" for condition in conditions))
    with query_errors():
        return [(job_id, number) for job_id, number in stats.sql(sql, **parameters, **given).fetchall()]


def shown(value: Any) -> str:
    """A value as it is read: numbers of four digits, times to the second in UTC, nothing for what is unknown."""
    match value:
        case None:
            return ""
        case float() if 1e-6 <= abs(value) < 1e-4:  # a node of microseconds: no exponent in a column of seconds
            return f"{value:.6f}".rstrip("0")
        case float():
            return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        case datetime():
            return f"{value:%Y-%m-%d}" if value.time() == time() else f"{value:%Y-%m-%d %H:%M:%S}"
        case date():
            return value.isoformat()
        case _:
            return str(value)


def _is_number_column(rows: Sequence[Sequence[Any]], place: int) -> bool:
    known = [row[place] for row in rows if row[place] is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
