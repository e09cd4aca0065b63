"""Plan: what a request or a batch would do, before anything is sent.

Owns the rehearsal: counts, duplicates, what is missing and where it belongs. Knows catalogs and the ledger, and asks no server itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from toolkit.errors import ToolkitError, WorkflowInvalid
from toolkit.forecast import Forecaster
from toolkit.graph import NodeCatalog
from toolkit.ledger import Ledger
from toolkit.pipelines import build
from toolkit.progress import Range, calibrated, duration
from toolkit.prompts import Wildcards
from toolkit.requests import Request
from toolkit.times import loads_of

if TYPE_CHECKING:
    from toolkit.pipelines.built import Built


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request would do, nothing sent; durations, bytes and price are None until enough was run to know."""

    jobs: int
    duplicates: int
    faults: Sequence[str] = ()
    warnings: Sequence[str] = ()
    choices: Sequence[str] = ()
    duration: Range | None = None
    size_bytes: int | None = None
    cost: float | None = None
    graph: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def sentence(self) -> str:
        """The rehearsal in a line or two, as it stands above a button."""
        said = f"{self.jobs} job{'' if self.jobs == 1 else 's'}" + (f", {self.duplicates} of them there already" if self.duplicates else "")
        said += f", about {duration(self.duration.expected_s)}" if self.duration is not None else ""
        return f"{said}. {' '.join(self.faults or self.choices)}".strip()

    def __repr__(self) -> str:
        return self.sentence


def rehearse(
    requests: Sequence[Request], catalogs: Mapping[str, NodeCatalog], ledger: Ledger, wildcards: Wildcards, forecasts: Callable[[str], Forecaster]
) -> Plan:
    """Build every request for the first server that can run it; equal ones count once. `forecasts` tells what a server's jobs take."""
    distinct = list({ledger.hash_of(request): request for request in requests}.values())
    known = sum(1 for request in distinct if ledger.has_equal(request))
    faults, warnings, choices, graph = list[str](), list[str](), list[str](), dict[str, Any]()
    seconds, loaded, forecast = list[float | None](), set[str](), cache(forecasts)
    for request in distinct:
        try:
            url, built = _built(request, catalogs, wildcards)
        except ToolkitError as error:
            faults += [fault for fault in _faults_of(error) if fault not in faults]
            continue
        graph = graph or dict(built.graph)
        loads = set(loads_of(built.graph))
        seconds.append(forecast(url).expected(built.graph, cold=not loads <= loaded))
        loaded = loads
        warnings += [warning for warning in built.warnings if warning not in warnings]
        choice = built.recipe.get("choice")
        choices += [f"{choice}."] if choice and f"{choice}." not in choices else []
    return Plan(len(requests), len(requests) - len(distinct) + known, faults, warnings, choices, _range(seconds), graph=graph)


def _range(seconds: Sequence[float | None]) -> Range | None:
    """All of it one after the other; None where a part is unknown."""
    known = [part for part in seconds if part is not None]
    return calibrated(sum(known), "family") if known and len(known) == len(seconds) else None


def _built(request: Request, catalogs: Mapping[str, NodeCatalog], wildcards: Wildcards) -> tuple[str, Built]:
    failures = list[ToolkitError]()
    for url, catalog in catalogs.items():
        try:
            return url, build(request, catalog, "toolkit/plan", wildcards)
        except ToolkitError as error:
            failures.append(error)
    raise failures[0]


def _faults_of(error: ToolkitError) -> Sequence[str]:
    return error.faults if isinstance(error, WorkflowInvalid) and error.faults else [str(error)]
