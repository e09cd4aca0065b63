"""`jobs`, `cancel`, `sql` and `ask`: what the home knows, asked without any server.

Owns filters and columns. `jobs` and `cancel` go to the studio's ledger: `studio.job` would look for a server, to feed it an open job, which
only a cancel that a server has to confirm needs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from toolkit.analysis import Answer, Log
from toolkit.cli.door import JOB_FAILED, app
from toolkit.cli.following import final_within
from toolkit.cli.options import AsJson
from toolkit.cli.printing import percent, print_jobs, print_json, print_table, say
from toolkit.errors import OutputError, RequestInvalid
from toolkit.jobs import IN_FLIGHT, Job, JobStatus
from toolkit.progress import duration
from toolkit.requests import Kind
from toolkit.studio import Studio

CANCEL_WAIT_S = 15.0  # a server stops between two sampling steps, and not within one
TABLE_ROWS = 1000  # rich measures every cell; more rows are for --json and --output
STATUSES = (*(str(status) for status in JobStatus), "open", "final")


@app.command()
def jobs(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help=f"Only these: {', '.join(STATUSES)}.", autocompletion=lambda: list(STATUSES))] = None,
    project: Annotated[str | None, typer.Option(help="Only this project's.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Only pictures, clips or workflows.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest jobs."""
    if status is not None and status not in STATUSES:
        raise RequestInvalid(f"There is no status '{status}'.", hint=f"Known are {', '.join(STATUSES)}.", field="status")
    with context.obj.studio() as studio:
        held = studio._held()
        if held is not None:
            say(f"note: {held}")
        found = studio._ledger.jobs(status=status, project=project, kind=kind, limit=limit)
        if as_json:
            print_jobs(studio, *found)
        else:
            print_table(("id", "kind", "project", "status", "created", "took", "what"), [_row(job, studio) for job in found])


def _row(job: Job, studio: Studio) -> tuple[str, ...]:
    how_far = f" {percent(studio._progress_of(job))}" if job.status in IN_FLIGHT else ""
    took = job.timings.run_s if job.timings else None
    what = job.error or getattr(job.request, "prompt", None) or ", ".join(file.name for file in job.files)
    created = f"{job.created.utc.astimezone():%Y-%m-%d %H:%M:%S}"
    return job.id[:8], job.kind, job.project, f"{job.status}{how_far}", created, "" if took is None else duration(took), what


@app.command()
def cancel(
    context: typer.Context,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, or how they begin.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Take jobs out of the line, or stop them on their server; says what became of each (1: not all are cancelled)."""
    with context.obj.studio() as studio:
        before = [studio._ledger.job(job_id) for job_id in ids]  # an unknown id cancels nothing
        asked = [studio._ledger.ask_cancel(job.id) for job in before]
        after = [job if job.is_final else final_within(studio.job(job.id), CANCEL_WAIT_S) for job in asked]
        if as_json:
            print_jobs(studio, *after)
    for old, job in zip(before, after, strict=True):
        say(f"{job.kind} {job.id[:8]} {_cancelled(old, job)}.")
    if any(job.status != JobStatus.CANCELLED for job in after):
        raise typer.Exit(JOB_FAILED)


def _cancelled(old: Job, job: Job) -> str:
    if not job.is_final:
        return f"is still {job.status}: its server is asked to stop it, and has not within {CANCEL_WAIT_S:g} s; `toolkit jobs` shows when it has"
    if job.status == JobStatus.CANCELLED:
        return "was cancelled before" if old.is_final else "is cancelled"
    return f"has ended already: {job.status}" if old.is_final else f"was quicker than the cancel: {job.status}"


LogFile: TypeAlias = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="Ask this .duckdb file instead: an export, a merged log, the sample.", show_default="the home's")
]


@contextlib.contextmanager
def _log(context: typer.Context, file: Path | None) -> Iterator[Studio | Log]:
    """Who is asked: the home, or a file."""
    if file is not None:
        yield Log(file)
        return
    with context.obj.studio() as studio:
        yield studio


def _questions() -> list[str]:
    from toolkit.analysis.questions import questions

    return list(questions())


@app.command()
def sql(
    context: typer.Context,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="One query; `from duckdb_columns()` lists tables, columns and what they mean.", show_default=False)
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write a CSV file instead.")] = None,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask the log in SQL: jobs, nodes, outputs, attempts, servers."""
    from toolkit.stats.connections import query_errors

    with _log(context, log) as asked, query_errors():
        relation = asked.sql(query)
        names, rows = list(relation.columns), relation.fetchall()
    if output is not None:
        _write_csv(output, names, rows)
    else:
        _print_rows(names, rows, as_json=as_json, every="--json or -o FILE.csv")


@app.command()
def ask(
    context: typer.Context,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Its name; `help` lists them.", autocompletion=_questions)] = "help",
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="NAME=VALUE", help="Only jobs like this: model=illustrious, kind=image, since=7d, lora=mika, ...; may be repeated."),
    ] = None,
    simulated: Annotated[bool, typer.Option("--simulated", help="The built-in engine's runs too.")] = False,
    only_sql: Annotated[bool, typer.Option("--sql", help="Print the SQL and leave.")] = False,
    log: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask the log a question by its name: slow_recipes, boxes, people, timeline, ..."""
    with _log(context, log) as asked:
        answer = asked.ask(question, **{**_conditions(where or ()), **({"simulated": True} if simulated else {})})
    if only_sql:
        typer.echo(answer.listing)
        return
    print_answer(answer, as_json=as_json)


def print_answer(answer: Answer, *, as_json: bool = False) -> None:
    """The question on stderr, its rows on stdout."""
    from toolkit.analysis.answer import shown

    say(answer.question)
    _print_rows(answer.columns, answer.rows, as_json=as_json, every="--json", text=shown)
    if not answer.rows:
        say(f"note: {answer.note or 'the log has nothing of this kind yet.'}")


def _conditions(texts: Sequence[str]) -> dict[str, Any]:
    """What --where says by name; a name that comes twice means either value."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise RequestInvalid(f"--where {text}: write NAME=VALUE.")
        found.setdefault(name.strip(), []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _print_rows(
    names: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    as_json: bool,
    every: str,
    text: Callable[[Any], str] = lambda value: "" if value is None else str(value),
) -> None:
    """Rows as JSON lines, or as a table that says which options give every row."""
    if as_json:
        for row in rows:
            print_json(dict(zip(names, row, strict=True)))
        return
    print_table(names, [[text(value) for value in row] for row in rows[:TABLE_ROWS]])
    if len(rows) > TABLE_ROWS:
        say(f"note: the first {TABLE_ROWS} of {len(rows)} rows; {every} gives all.")


def _write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    import csv

    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([names, *rows])
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.", path=str(path)) from error
    typer.echo(path)
