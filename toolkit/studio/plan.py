"""Plan: what a request or a batch would do, before anything is sent.

Owns the rehearsal: counts, duplicates, what is missing and where it belongs. Knows catalogs and the ledger, and asks no server itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from toolkit.errors import ToolkitError, WorkflowInvalid
from toolkit.forecast import Forecaster
from toolkit.graph import NodeCatalog
from toolkit.jobs import JobStatus, OpenJob
from toolkit.ledger import Ledger
from toolkit.order import PATIENCE_S, turns
from toolkit.pipelines import build
from toolkit.pipelines.built import Built
from toolkit.progress import Range, calibrated, duration
from toolkit.prompts import Wildcards
from toolkit.requests import Request
from toolkit.times import Cost


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
    requests: Sequence[Request], catalogs: Mapping[str, NodeCatalog], ledger: Ledger, wildcards: Wildcards, forecasts: Callable[[str], Forecaster],
    person: str | None = None,
) -> Plan:  # fmt: skip
    """Build every request for the first server that can run it; equal ones count once, of a guest `person` their own. `forecasts` tells what jobs take."""
    distinct = list({ledger.hash_of(request): request for request in requests}.values())
    known = sum(1 for request in distinct if ledger.has_equal(request, person))
    faults, warnings, choices, graph = list[str](), list[str](), list[str](), dict[str, Any]()
    line, forecast = list[OpenJob](), cache(forecasts)
    for request in distinct:
        try:
            able = _built(request, catalogs, wildcards)
        except ToolkitError as error:
            faults += [fault for fault in _faults_of(error) if fault not in faults]
            continue
        built = next(iter(able.values()))
        graph = graph or dict(built.graph)
        line.append(_waiting(len(line), built, list(able)))
        for url, its in able.items():
            forecast(url).remember(line[-1].recipe_key, its.graph)
        warnings += [warning for warning in built.warnings if warning not in warnings]
        choice = built.recipe.get("choice")
        choices += [f"{choice}."] if choice and f"{choice}." not in choices else []
    return Plan(len(requests), len(requests) - len(distinct) + known, faults, warnings, choices, _duration(line, forecast), graph=graph)


def _waiting(seq: int, built: Built, servers: Sequence[str]) -> OpenJob:
    """A planned job as it would stand in the line."""
    kind = "video" if (built.recipe.get("frames") or 1) > 1 else "image"
    return OpenJob(seq, str(seq), JobStatus.QUEUED, kind, 1, "", tuple(servers), 0.0, False, 0, None, *Cost.of(built.graph))


def _duration(line: Sequence[OpenJob], forecast: Callable[[str], Forecaster]) -> Range | None:
    """Until the last of them ends, shared out as the common order would with nobody else there; None where one is unknown."""
    urls = dict.fromkeys(url for job in line for url in job.servers)
    lines = [forecast(url).line(0.0, usable=True, patience_s=PATIENCE_S) for url in urls]
    ends = [turn.starts_s + turn.takes_s if turn.starts_s is not None and turn.takes_s is not None else None for turn in turns(line, lines)]
    known = [end for end in ends if end is not None]
    return calibrated(max(known), "family") if known and len(known) == len(ends) else None


def _built(request: Request, catalogs: Mapping[str, NodeCatalog], wildcards: Wildcards) -> dict[str, Built]:
    """What the request becomes on each server that can run it."""
    able, failures = dict[str, Built](), list[ToolkitError]()
    for url, catalog in catalogs.items():
        try:
            able[url] = build(request, catalog, "toolkit/plan", wildcards)
        except ToolkitError as error:
            failures.append(error)
    if not able:
        raise failures[0]
    return able


def _faults_of(error: ToolkitError) -> Sequence[str]:
    return error.faults if isinstance(error, WorkflowInvalid) and error.faults else [str(error)]
