"""`python -m tests.benchmarks.log`: what a home of a million jobs costs to ask, to publish, to open and to list; a table, and data/bench-log.json.

TOOLKIT_BENCH_JOBS makes another number of jobs, TOOLKIT_BENCH_HOME keeps the home (making a million takes a quarter of an hour). The machine may be
shared and noisy, so each figure is the best of some runs: what it takes, not what else was going on.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from tests.benchmarks.history import add_jobs, made_up_home
from tests.serving import served
from toolkit import Studio
from toolkit.analysis.questions import questions
from toolkit.ledger import Ledger
from toolkit.service import build_service
from toolkit.settings import Settings
from toolkit.stats import Stats

JOBS, RUNS, NEW = 1_000_000, 5, 1000
AGGREGATES = {
    "jobs by status": "from jobs select status, count(*) group by all",
    "work by model": "from jobs select model, count(*), avg(run_s), sum(size_bytes) group by all",
    "work by server and month": "from jobs select server_url, date_trunc('month', created_at), sum(run_s), sum(clip_s) group by all",
}
PAGES = (
    "", "&status=done", "&status=failed", "&status=open", "&kind=video", "&project=owl", "&status=failed&kind=video&project=owl", "&project=nobody",
)  # fmt: skip

Row = Callable[[str, float, str, str, bool, str], None]


def best(work: Callable[[], Any], runs: int = RUNS) -> float:
    """The shortest of some runs, in seconds."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def bounded(row: Row, name: str, value: float, unit: str, bound: float, how: str) -> None:
    """A row whose value must not be above its bound."""
    row(name, value, unit, f"<= {bound:g}", value <= bound, how)


def asked(stats: Stats, row: Row) -> None:
    """The log's aggregates, and its named questions."""
    for name, query in AGGREGATES.items():
        bounded(row, f"log: {name}", 1000 * best(lambda query=query: stats.sql(query).fetchall()), "ms", 100, f"best of {RUNS}")  # type: ignore[misc]
    for name, question in questions().items():
        bounded(row, f"log: question {name}", 1000 * best(lambda query=question.sql: stats.sql(query).fetchall()), "ms", 1000, f"best of {RUNS}")  # type: ignore[misc]


def published(home: Path, ledger: Ledger, stats: Stats, row: Row) -> None:
    """Publishing what is new: a thousand jobs after a few, and a thousand after a thousand, since the file that is written is a version behind."""
    environments: dict[str, list[str]] = {}
    for about in ledger.environments():
        environments.setdefault(about["server_url"], []).append(about["environment_id"])
    seconds: dict[str, list[float]] = {"a few": [], "a thousand": []}
    for number in range(3):
        for before, jobs in (("", 1), ("", 1), ("a few", NEW), ("a thousand", NEW)):
            with closing(sqlite3.connect(home / "ledger.sqlite", isolation_level=None)) as connection:
                add_jobs(connection, environments, jobs, seed=time.time_ns() + number)
            began, busy = time.perf_counter(), time.process_time()
            stats.publish()
            seconds.get(before, []).append(time.perf_counter() - began)
            print(f"  {jobs} after {before or 'one'}: {time.perf_counter() - began:.2f} s, {time.process_time() - busy:.2f} s of them computing", flush=True)
    bounded(row, f"log: publish {NEW} new jobs", min(seconds["a few"]), "s", 1, "best of 3, the version before had one new job")
    bounded(row, f"log: publish {NEW} new jobs, again", min(seconds["a thousand"]), "s", 2, f"best of 3, the version before had {NEW} new jobs")


def opened(home: Path, row: Row) -> None:
    """From Studio(...) to the first list of jobs."""

    def once() -> None:
        with Studio("engine", home=home) as studio:
            studio.jobs()

    bounded(row, "home: open a Studio and list its latest jobs", best(once), "s", 2, f"best of {RUNS}")


def listed(home: Path, row: Row) -> None:
    """Pages of GET /api/anime/jobs, over HTTP."""
    with Studio("engine", home=home) as studio, served(build_service(studio, Settings(home=home))) as url, httpx.Client(base_url=url, timeout=60) as client:
        (last,) = sqlite_row(home, "SELECT max(seq) FROM jobs")
        for filters in (*PAGES, f"&cursor={last // 2}", f"&status=failed&cursor={last // 2}", f"&status=final&project=fox&cursor={last // 10}"):
            path = f"/api/anime/jobs?limit=50{filters}"
            bounded(row, f"REST: {path.rpartition('/')[2]}", 1000 * best(lambda path=path: client.get(path).raise_for_status()), "ms", 100, f"best of {RUNS}")  # type: ignore[misc]


def sqlite_row(home: Path, query: str) -> Any:
    """The only row of a query to the ledger's file."""
    with closing(sqlite3.connect(home / "ledger.sqlite")) as connection:
        return connection.execute(query).fetchone()


@contextmanager
def home_of(jobs: int) -> Iterator[Path]:
    """A home of so many jobs: the one that is kept, or one for this run."""
    kept = os.environ.get("TOOLKIT_BENCH_HOME")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(kept) if kept else Path(folder) / "home"
        if not (home / "ledger.sqlite").exists():
            made_up_home(home, jobs)
        yield home


def measured(row: Row, jobs: int = JOBS) -> None:
    """All rows about a home of so many jobs."""
    with home_of(jobs) as home, closing(Ledger(home)) as ledger:
        stats, began = Stats(ledger), time.perf_counter()
        if stats.publish():
            row(f"log: make it of {ledger.count()} jobs", time.perf_counter() - began, "s", "none", True, "once")
        opened(home, row)
        listed(home, row)
        asked(stats, row)
        published(home, ledger, stats, row)
        stats.close()


def main() -> None:
    """Print the table and write data/bench-log.json."""
    rows: list[dict[str, Any]] = []

    def row(name: str, value: float, unit: str, bound: str, holds: bool, how: str) -> None:
        rows.append({"name": name, "value": round(value, 3), "unit": unit, "bound": bound, "holds": holds, "how": how})
        print(f"{name}: {value:.3f} {unit} (bound {bound})", flush=True)

    measured(row, int(os.environ.get("TOOLKIT_BENCH_JOBS", JOBS)))
    table = Table("what", "value", "unit", "bound", "holds")
    for found in rows:
        table.add_row(found["name"], f"{found['value']:.3f}", found["unit"], found["bound"], "yes" if found["holds"] else "NO")
    Console().print(table)
    data = Path(__file__).parents[2] / "data"
    data.mkdir(exist_ok=True)
    (data / "bench-log.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
