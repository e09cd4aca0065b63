"""Tiny jobs beside a bare client in the same run: how many a second, what each costs the processor, one alone, and one in a full folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.bare import bare, tiny
from tests.benchmarks.rounds import ROUNDS
from tests.benchmarks.usage import processor_s
from toolkit import Studio, WorkflowRequest

JOBS, ALONE = 200, 7
FILES = 20_000
Row = Callable[..., None]


def as_batch(studio: Studio, first: int, count: int) -> float:
    """Seconds from the hand-over of a batch to its last file in the ledger."""
    began = time.perf_counter()
    studio.submit_many([WorkflowRequest(workflow=tiny(number, "x")) for number in range(first, first + count)], priority="normal").wait(300)
    return time.perf_counter() - began


def one_by_one(studio: Studio, first: int, count: int) -> float:
    """The same, each job handed over by itself."""
    began = time.perf_counter()
    handles = [studio.run(tiny(number, "x")) for number in range(first, first + count)]
    for handle in handles:
        handle.wait(300)
    return time.perf_counter() - began


def paired(name: str, url: str, studio: Studio, row: Row) -> None:
    """Throughput, processor time and one job alone, ours beside bare."""
    one_by_one(studio, 0, 5), asyncio.run(bare(url, 0, 5))
    feeder = studio._board.servers()[0].pid
    batch, single, alone, used, least = list[float](), list[float](), list[float](), list[float](), list[float]()
    for pair in range(ROUNDS):
        first = 10_000 * (pair + 1)
        before = processor_s()
        took = asyncio.run(bare(url, first, JOBS))
        least.append(1000 * (processor_s() - before) / JOBS)
        before = processor_s() + processor_s(feeder)
        batch.append(took / as_batch(studio, first + 1000, JOBS))
        used.append(1000 * (processor_s() + processor_s(feeder) - before) / JOBS)
        single.append(asyncio.run(bare(url, first + 2000, JOBS)) / one_by_one(studio, first + 3000, JOBS))
        alone += [1000 * (one_by_one(studio, first + 4000 + n, 1) - asyncio.run(bare(url, first + 5000 + n, 1))) for n in range(ALONE)]
    for how, ratios in (("as one batch", batch), ("handed over one by one", single)):
        row(f"{name}: throughput of {JOBS} tiny jobs {how}", statistics.median(ratios), "of bare", ">= 0.85", statistics.median(ratios) >= 0.85)
    said = f"median of {ROUNDS} batches, feeder and studio; bare: {statistics.median(least):.2f} ms"
    row(f"{name}: processor time of one of {JOBS} tiny jobs", statistics.median(used), "ms", "<= 6", statistics.median(used) <= 6, said)
    said = f"median of {ROUNDS * ALONE} pairs, from submit to the file in the ledger"
    row(f"{name}: one tiny job alone", statistics.median(alone), "ms more than bare", "<= 10", statistics.median(alone) <= 10, said)


def full_folder(name: str, output: Path, studio: Studio, row: Row) -> None:
    """Batches with many strange files beside our folders on the server, and with none; the two folders change places in between."""
    used, aside, before, count = output / "toolkit", output / "toolkit-aside", output / "toolkit-before", 50
    os.rename(used, before)  # earlier jobs left thousands of folders there, which would be in the way of "none"
    used.mkdir()
    aside.mkdir()
    for number in range(FILES):
        (aside / f"ComfyUI_{number:05}_.png").touch()
    ratios = []
    for pair in range(ROUNDS):
        empty = as_batch(studio, 100_000 + 200 * pair, count)
        _swap(used, aside)
        ratios.append(as_batch(studio, 100_100 + 200 * pair, count) / empty)
        _swap(used, aside)
    shutil.rmtree(aside)
    shutil.rmtree(used)
    os.rename(before, used)
    found = statistics.median(ratios)
    row(f"{name}: a job beside {FILES} files in the server's folder", found, "of one beside none", "<= 1.2", found <= 1.2)


def _swap(one: Path, other: Path) -> None:
    between = one.with_name("toolkit-between")
    os.rename(one, between)
    os.rename(other, one)
    os.rename(between, other)
