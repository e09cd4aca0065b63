"""The common order, measured: models loaded as seldom as can be, a guest beside a sweep, servers of different speeds.

On the built-in engine, and what loading costs on a real server too. Each figure is the median of several runs, or what held in each of them.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest import mock

from tests.benchmarks.rounds import ROUNDS, repeated
from tests.conftest import end_children
from toolkit import ImageRequest, Studio
from toolkit.processes import engine_url

Row = Callable[..., None]
SPEEDS = (1, 2, 2, 4)


def asked(number: int, model: str, *, steps: int = 3, size: int = 64) -> ImageRequest:
    """A small picture of its own."""
    return ImageRequest(prompt=f"a fox {number}", seed=number, model=model, width=size, height=size, steps=steps, quality_tags=False)


@contextmanager
def studio_of(servers: str | Sequence[str], **environment: str) -> Iterator[Studio]:
    """A studio in a home of its own, under these settings."""
    with mock.patch.dict(os.environ, environment), tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        with Studio(servers, home=home) as studio:
            yield studio
        end_children(home)


def loads(studio: Studio) -> int:
    """How many of its jobs read a model."""
    return int(studio.sql("from jobs select count(*) filter (warmth = 'cold')").fetchall()[0][0])


def alternating(studio: Studio, models: Sequence[str], first: int, count: int, **fields: int) -> float:
    """Seconds that jobs over two models take, submitted alternating."""
    began = time.perf_counter()
    studio.submit_many([asked(first + number, models[number % 2], **fields) for number in range(count)]).wait(1200)
    return time.perf_counter() - began


def two_models(row: Row) -> None:
    """Forty jobs over two checkpoints with long loads: how often they are loaded, and who pays for it."""
    models = ("standin_xl.safetensors", "standin_illustrious.safetensors")
    with studio_of("engine", TOOLKIT_ENGINE_STEP_S="0.02", TOOLKIT_ENGINE_LOAD_S="5", TOOLKIT_PATIENCE_S="60") as studio:
        alternating(studio, models, 0, 40)
        made, held = loads(studio), held_back(studio)
    row("engine: loads of 40 alternating jobs over two models, 5 s a load", made, "loads", "<= 2", made <= 2, "by the log", every=True)
    row("engine: longest anybody was held back by them", held, "s", "<= 60", held <= 60, "by their starts", every=True)


def two_checkpoints(row: Row, real: str) -> None:
    """The same on a real server, beside the order of arrival."""
    checkpoints = real_checkpoints(real)
    ratios = []
    for pair in range(ROUNDS):
        took = {}
        for patience in ("0", "600") if pair % 2 else ("600", "0"):
            with studio_of(real, TOOLKIT_PATIENCE_S=patience) as studio:
                took[patience] = alternating(studio, checkpoints, 1000 * pair + int(patience), 40, steps=1)
        ratios.append(took["600"] / took["0"])
    ratio = statistics.median(ratios)
    row("real: 40 alternating jobs over two checkpoints", ratio, "of by arrival", "<= 0.75", ratio <= 0.75)


def held_back(studio: Studio) -> float:
    """The longest time that jobs which came later took before one that waited, in seconds."""
    rows = studio.sql("from jobs select epoch(started_at), run_s, job_id order by created_at, job_id").fetchall()
    order = {job.id: job.seq for job in studio._ledger.jobs(limit=-1)}
    return max(sum(run_s for start, run_s, job in rows if order[job] > order[mine] and start < began) for began, _, mine in rows)


def real_checkpoints(url: str) -> tuple[str, str]:
    """Two checkpoints of a real server."""
    with studio_of(url) as studio:
        catalog = next(iter(studio._servers.catalogs().values()))
        first, second, *_ = catalog.choices("CheckpointLoaderSimple", "ckpt_name")
        return first, second


def guest(row: Row) -> None:
    """A sweep of 200 and a guest's picture with another model, on one server."""
    with studio_of("engine", TOOLKIT_ENGINE_STEP_S="0.02", TOOLKIT_ENGINE_LOAD_S="0.5") as studio:
        studio.submit_many([asked(number, "standin_illustrious") for number in range(5)]).wait(60)
        began = time.perf_counter()
        sweep = studio.submit_many([asked(number, "standin_illustrious") for number in range(100, 300)])
        time.sleep(2)
        before = sum(1 for job in sweep if job.job.started is not None)
        picture = studio.submit(asked(999, "standin_xl.safetensors"), origin="page", person="ben")
        picture.wait(120)
        start = picture.job.started
        between = sum(1 for job in sweep if job.job.started is not None and start is not None and job.job.started.wall < start.wall) - before
        name, how = "engine: jobs of a sweep of 200 that start before a guest's picture", "one runs, one waits on the server"
        row(name, between, "jobs", "<= 2", between <= 2, how, every=True)
        sweep.wait(600)
        together = time.perf_counter() - began
        alone = time.perf_counter()
        studio.submit_many([asked(number, "standin_illustrious") for number in range(1100, 1300)]).wait(600)
        alone = time.perf_counter() - alone
        row("engine: a sweep of 200 with a guest's picture", together / alone, "of without", "<= 1.15", together / alone <= 1.15, "pairs")


class Box:
    """An engine of some speed that can be killed and started again at its address."""

    def __init__(self, home: Path, step_s: float) -> None:
        self._home, self._step_s, self.url = home, step_s, ""
        self.start()

    def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        command = [
            sys.executable,
            "-m",
            "toolkit.engine",
            "--home",
            str(self._home),
            "--step-s",
            str(self._step_s),
            "--load-s",
            "0",
            "--idle-s",
            "0",
            "--port",
            port,
        ]
        self._child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while engine_url(self._home) is None:
            time.sleep(0.05)
        self.url = str(engine_url(self._home))

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()


@contextmanager
def boxes(step_s: float) -> Iterator[list[Box]]:
    """Four engines of speeds 1, 2, 2, 4."""
    with ExitStack() as stack:
        found = []
        for speed in SPEEDS:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            found.append(Box(home, step_s / speed))
            stack.callback(found[-1].kill)
        yield found


def four_servers(row: Row, away_s: tuple[float, float] | None = None) -> None:
    """200 jobs of mixed length on four engines, beside the work divided by the speed that each showed while it was there."""
    draw = random.Random(3)
    lengths = [draw.choice((4, 8, 16, 30)) for _ in range(200)]
    with boxes(0.12) as servers, studio_of([box.url for box in servers]) as studio:
        studio.submit_many([asked(number, "standin_illustrious", steps=4) for number in range(12)]).wait(120)  # who is how fast
        began = time.time()
        batch = studio.submit_many([asked(1000 + number, "standin_illustrious", steps=steps) for number, steps in enumerate(lengths)])
        missing = 0.0
        if away_s is not None:
            time.sleep(away_s[0])
            servers[1].kill()
            left = time.time()
            time.sleep(away_s[1])
            servers[1].start()
            missing = time.time() - left
        batch.wait(600)
        took = time.time() - began
        query = "from jobs select server_url, sum(steps) / sum(run_s) where epoch(created_at) >= $since and attempts = 1 group by server_url"
        speeds = dict(studio.sql(query, since=began - 0.5).fetchall())
        bound = (sum(lengths) + missing * speeds[servers[1].url]) / sum(speeds.values())
        name = "servers of speeds 1, 2, 2, 4" + (" of which one is away for a while" if away_s is not None else "")
        row(f"engine: 200 jobs of mixed length on {name}", took / bound, "of the lower bound", "<= 1.1", took / bound <= 1.1, "by the speed each showed")


def measure(row: Row, real: str | None) -> None:
    """All of it."""
    repeated(two_models, row)
    if real is not None:
        two_checkpoints(row, real)
    repeated(guest, row)
    repeated(four_servers, row)
    repeated(partial(four_servers, away_s=(12.0, 10.0)), row)
