"""The Timings tab: the named questions of the log as charts and tables; for the owner the SQL console, the questions as its starting points.

Owns how an answer stands on the page. Guests are answered about their own jobs. The console's queries run in a process of their own
(stats/console.py) and are asked for by the owner only, whatever a browser says.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component

from toolkit.errors import RequestInvalid, ToolkitError
from toolkit.studio import Studio
from toolkit.ui import cards
from toolkit.ui.events import QUIET, plain, visitor_of
from toolkit.ui.gallery import only_engine
from toolkit.visitors import THE_OWNER, Visitor

ROWS_SHOWN = 100
FIRST = "stages"
OF_OTHERS = ("people", "timeline", "busy")  # about everybody, which is no guest's to know
SINCE = [("All time", ""), ("30 days", "30d"), ("7 days", "7d"), ("A day", "1d")]
SIMULATED = "Runs of the built-in engine: it draws stand-ins, so these times say nothing of a GPU."


class Answering:
    """Questions and queries, answered as HTML; each can be called without a browser."""

    def __init__(self, studio: Studio, *, has_console: bool) -> None:
        self._studio, self.has_console = studio, has_console

    def answer(self, name: str, since: str = "", visitor: Visitor = THE_OWNER) -> str:
        """The chart and table of a named question."""
        try:
            if not visitor.is_owner and name in OF_OTHERS:
                raise RequestInvalid("That is for the owner of this page.", field="question")
            simulated = only_engine(self._studio)
            where = {"since": since, "person": visitor.only, "simulated": simulated}
            found = self._studio.ask(name, **{word: value for word, value in where.items() if value})
            chart = _chart(found.name, found.question, found.records())
        except ToolkitError as error:
            return cards.refusal(error)
        note = cards.note(SIMULATED) if simulated and found.rows else cards.note(found.note or "")
        sql = f'<details><summary>SQL</summary><pre tabindex="0">{cards.text(found.listing)}</pre></details>' if visitor.is_owner else ""
        return note + chart + table(found.columns, found.rows, name) + sql

    def query(self, query: str, visitor: Visitor = THE_OWNER) -> str:
        """What somebody's SQL finds, with a chart where its columns make one."""
        try:
            if not (visitor.is_owner and self.has_console):
                raise RequestInvalid("The SQL console is for the owner of this page.", field="query")
            found = self._studio.console(query)
            records = [dict(zip(found["columns"], row, strict=True)) for row in found["rows"]]
            chart = _chart("console", "", records)
        except ToolkitError as error:
            return cards.refusal(error)
        cut = ", cut: ask for less" if found["truncated"] else ""
        said = f"{len(records)} row{'' if len(records) == 1 else 's'} in {found['elapsed_s']:.2f} s{cut}"
        return cards.note(said) + chart + table(found["columns"], found["rows"], "query")

    def text_of(self, name: str) -> str:
        """The SQL of a named question, to begin with."""
        from toolkit.analysis.questions import questions

        return questions()[name].sql if name in questions() else ""


def choices(visitor: Visitor = THE_OWNER) -> list[tuple[str, str]]:
    """The questions by their sentences."""
    from toolkit.analysis.questions import questions

    return [(asked.sentence, name) for name, asked in questions().items() if name != "help" and (visitor.is_owner or name not in OF_OTHERS)]


def _chart(name: str, title: str, records: Sequence[Mapping[str, Any]]) -> str:
    """A picture in the page itself, for light and for dark; nothing where there is nothing to draw."""
    from toolkit.analysis.charts import draw, is_drawn

    if not is_drawn(name, records):
        return ""
    shown = []
    for style in ("light", "dark"):
        source = cards.data_url(draw(name, "", records, style)._repr_png_()[0], "image/png")
        shown.append(f'<img class="chart on-{style}" src="{source}" alt="Chart: {cards.text(title or "the rows below")}">')
    return f'<div class="charts" tabindex="0" role="region" aria-label="Chart">{"".join(shown)}</div>'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], name: str) -> str:
    """The first rows as a table, and all of them as a file of CSV that is in the page already."""
    from toolkit.analysis.answer import shown

    if not rows:
        return '<p class="say">No rows.</p>'
    numbers = [any(isinstance(row[place], int | float) for row in rows[:ROWS_SHOWN]) for place in range(len(columns))]
    marks = [' class="number"' if is_number else "" for is_number in numbers]
    head = "".join(f'<th scope="col"{mark}>{cards.text(column)}</th>' for column, mark in zip(columns, marks, strict=True))
    cells = ("".join(f"<td{mark}>{cards.text(shown(value)[:300])}</td>" for value, mark in zip(row, marks, strict=True)) for row in rows[:ROWS_SHOWN])
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    file = io.StringIO()
    csv.writer(file).writerows([columns, *rows])
    more = cards.note(f"The first {ROWS_SHOWN} of {len(rows)} rows; the file has all.") if len(rows) > ROWS_SHOWN else ""
    get = (
        f'<p class="acts"><a class="act get" download="{cards.text(name)}.csv" href="data:text/csv;charset=utf-8,{quote(file.getvalue())}">Download CSV</a></p>'
    )
    wide = '<div class="wide" tabindex="0" role="region" aria-label="Rows"><table class="rows">'
    return f"{wide}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}{get}"


def build_timings(answering: Answering) -> tuple[list[Component], gr.HTML, gr.Accordion]:
    """The question and its time, the place of the answer, and the console, which is the owner's."""
    with gr.Row():
        question = gr.Dropdown(choices(), value=FIRST, label="Question", min_width=260, scale=3, elem_id="question")
        since = gr.Radio(SINCE, value="", label="Since", min_width=260, scale=2, elem_id="since")
    answer = plain("", "answer")
    with gr.Accordion("Ask in SQL", open=False, visible=False, elem_id="console", elem_classes="fold") as console:
        begin = gr.Dropdown([("A question as a start …", ""), *choices()], value="", label="Begin with", elem_id="begin")
        query = gr.Textbox("from jobs select status, count(*) as jobs group by all order by jobs desc", label="SQL", lines=6, max_lines=20, elem_id="query")
        run = gr.Button("Run", variant="primary", elem_id="run")
        rows = plain("", "rows")
    begin.input(answering.text_of, begin, query, **QUIET)

    def ask(name: str, since: str, request: gr.Request) -> str:
        return answering.answer(name, since, visitor_of(request))

    def look(text: str, request: gr.Request) -> str:
        return answering.query(text, visitor_of(request))

    gr.on([question.input, since.input], ask, [question, since], answer, **QUIET)
    gr.on([run.click, query.submit], look, query, rows, **QUIET)
    return [question, since], answer, console
