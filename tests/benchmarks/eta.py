"""How good progress and ETA are: what was said at 25 % of a run beside what it was, how often the range held, how evenly the bar moved.

A linear extrapolation of the same runs stands beside it. Thirty jobs teach, the others are measured. On the engine with noisy steps, and on a
real server with a checkpoint.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.benchmarks.order import asked, real_checkpoints, studio_of
from tests.benchmarks.rounds import repeated
from toolkit import Progress, Studio
from toolkit.jobs import Job
from toolkit.ledger import rows

Row = Callable[..., None]
TAUGHT, MEASURED = 30, 40


def watched(studio: Studio, model: str, **fields: int) -> tuple[list[Job], dict[str, list[Progress]]]:
    """Jobs of one kind after those that taught, and what was shown of each."""
    shown: dict[str, list[Progress]] = {}

    def take(news: Job | tuple[str, Progress]) -> None:
        if isinstance(news, tuple) and news[1].elapsed_s > 0:
            shown.setdefault(news[0], []).append(news[1])

    studio.submit_many([asked(number, model, **fields) for number in range(TAUGHT)]).wait(1800)
    leave = studio._watcher.subscribe_all(take)
    batch = studio.submit_many([asked(1000 + number, model, **fields) for number in range(MEASURED)])
    batch.wait(1800)
    time.sleep(0.3)
    leave()
    return [handle.job for handle in batch], shown


def linear_error(seen: Sequence[Progress], run_s: float) -> float | None:
    """How wrong a linear extrapolation of the steps done is at 25 % of a run, as a share of it; None where no step was done by then."""
    for shown in seen:
        if shown.elapsed_s >= 0.25 * run_s and shown.step and shown.steps:
            return abs(shown.elapsed_s * (shown.steps / shown.step - 1) - (run_s - shown.elapsed_s)) / run_s
    return None


def compare(name: str, studio: Studio, model: str, bound: float, row: Row, **fields: int) -> None:
    """The rows of one server."""
    jobs, shown = watched(studio, model, **fields)
    took = {job.id: job.timings.run_s for job in jobs if job.timings is not None and job.timings.run_s}
    told = {eta_job: eta for eta_job, eta in etas(studio, set(took))}
    errors = [abs(eta.expected_s - eta.actual_s) / took[job_id] for job_id, eta in told.items() if eta.actual_s is not None]
    inside = [eta.low_s <= eta.actual_s <= eta.high_s for eta in told.values() if eta.actual_s is not None]
    how = f"{len(errors)} jobs after {TAUGHT}"
    error = statistics.median(errors)
    row(f"{name}: error of the ETA at 25 % of the run", error, "of the whole", f"<= {bound}", error <= bound, how)
    share = sum(inside) / len(inside)
    row(f"{name}: how often its 80 % range held", share, "of cases", "0.7 to 0.9", 0.7 <= share <= 0.9, how)
    lines = [line for job_id, run_s in took.items() if (line := linear_error(shown.get(job_id, ()), run_s)) is not None]
    linear = statistics.median(lines)
    row(f"{name}: error of a linear extrapolation there", linear, "of the whole", f"> {error:.3f}", linear > error, how)
    deviations = [statistics.mean(abs(at.fraction - min(at.elapsed_s / took[job_id], 1.0)) for at in seen) for job_id, seen in shown.items() if job_id in took]
    deviation = statistics.median(deviations)
    row(f"{name}: how far the bar is from the share of time", deviation, "", "<= 0.05", deviation <= 0.05, how)


def etas(studio: Studio, wanted: set[str]) -> list[tuple[str, Any]]:
    """What was predicted of these jobs at 25 %."""
    query = "SELECT * FROM etas WHERE moment = 'p25' AND target = 'end'"
    return [(row["job_id"], rows.read_eta(row)) for row in studio._ledger._database.rows(query) if row["job_id"] in wanted]


def measure(row: Row, real: str | None) -> None:
    """On the engine, and on a real server."""
    repeated(_on_engine, row)
    if real is not None:
        repeated(partial(_on_server, real, real_checkpoints(real)[0]), row)


def _on_engine(row: Row) -> None:
    with studio_of("engine", TOOLKIT_ENGINE_STEP_S="0.06", TOOLKIT_ENGINE_NOISE="0.3", TOOLKIT_ENGINE_LOAD_S="0.5") as studio:
        compare("engine", studio, "standin_illustrious", 0.1, row, steps=20, size=448)


def _on_server(url: str, model: str, row: Row) -> None:
    with studio_of(url) as studio:
        compare("real", studio, model, 0.2, row, steps=8, size=128)
