"""Several runs of one measurement, reported as one: the run whose value is the median, since machines are shared and noisy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

Row = Callable[..., None]
ROUNDS = int(os.environ.get("TOOLKIT_BENCH_ROUNDS", "5"))  # some rows take minutes each


def repeated(measure: Callable[[Row], None], row: Row) -> None:
    """Report of each row that `measure` makes the run in the middle; with `every` the first run that fails, if one does."""
    runs: dict[str, list[tuple[Any, ...]]] = {}

    def take(name: str, value: float, unit: str, bound: str, holds: bool, how: str, *, every: bool = False) -> None:
        runs.setdefault(name, []).append((value, unit, bound, holds, how, every))

    for _ in range(ROUNDS):
        measure(take)
    for name, found in runs.items():
        found.sort(key=lambda run: run[0])
        failed = [run for run in found if not run[3] and run[5]]
        value, unit, bound, holds, how, every = (failed or found[len(found) // 2 :])[0]
        said = f"{found[0][0]:.3f} to {found[-1][0]:.3f}"
        row(name, value, unit, bound, holds, f"{'each' if every else 'median'} of {len(found)} runs, {said}; {how}")
