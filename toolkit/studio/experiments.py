"""Experiments: one request and many cells, by seeds or along axes.

Owns how axes become requests: fields of the request, parameters of a workflow, words in braces of the prompt; every combination or in pairs, one seed
for all. A name is a batch's identity: the same once more goes on with it, and makes only what is not done or on its way. Sends nothing itself.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rapidfuzz import process as fuzzy

from toolkit.errors import RequestInvalid
from toolkit.exported import Workflow
from toolkit.jobs import Priority
from toolkit.ledger import BatchFacts, Ledger, NewBatch, NewJob
from toolkit.requests import ImageRef, ImageRequest, Lora, Request, VideoRequest, WorkflowRequest
from toolkit.studio.accepting import Accepting
from toolkit.studio.batches import Batch
from toolkit.studio.handles import JobHandle, OutputHandle
from toolkit.studio.orders import Orders

CELLS_LIMIT = 10_000
OF_CLIPS = frozenset(VideoRequest.model_fields) - frozenset(ImageRequest.model_fields)  # seconds, frames, fps, last_image: words for a clip


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is varied: a request, whether its seed was given, and the values of each axis in order."""

    request: Request
    has_seed: bool
    axes: Mapping[str, Sequence[Any]]
    pair: bool = False

    @property
    def base(self) -> str:
        """The same for what is made of the same request, however long its axes are."""
        fields = self.request.as_json()
        if not self.has_seed:
            fields.pop("seed", None)
        return hashlib.sha256(json.dumps([fields, sorted(self.axes)], sort_keys=True).encode()).hexdigest()[:32]

    @property
    def seed(self) -> str | None:
        """The request's, as the ledger keeps it: SQLite's numbers end at 2**63."""
        found = getattr(self.request, "seed", None)
        return None if found is None else str(found)

    def places(self) -> list[dict[str, Any]]:
        """The value on each axis, cell by cell: the last axis moves first.

        Raises:
            RequestInvalid: no values, pairs of unequal length, or more than 10,000 cells.
        """
        lengths = {name: len(values) for name, values in self.axes.items()}
        if self.pair and len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in lengths.items())
            raise RequestInvalid(f"Pairs need axes of one length: {told}.", hint="Without pair=True every combination is made.")
        cells = list(itertools.islice(zip(*self.axes.values(), strict=True) if self.pair else itertools.product(*self.axes.values()), CELLS_LIMIT + 1))
        if not self.axes or not cells:
            raise RequestInvalid("There is nothing to vary: an axis has no values.", hint="Write e.g. cfg=[4, 5, 6].")
        if len(cells) > CELLS_LIMIT:
            raise RequestInvalid(f"More than {CELLS_LIMIT} cells: {' x '.join(map(str, lengths.values()))}.", hint="Shorten an axis, or use pair=True.")
        return [dict(zip(self.axes, cell, strict=True)) for cell in cells]


class Experiments(Accepting):
    """The half of a Studio that asks for many jobs at once."""

    _defaults: Mapping[str, Any]

    def variations(
        self, of: str | Request | Workflow | OutputHandle | JobHandle, count: int = 20, *, name: str | None = None, priority: Priority = "background",
        reuse: bool | None = None, **fields: Any,
    ) -> Batch:  # fmt: skip
        """The same with other seeds, as one batch: `batch.keep(3, 11)`, `batch.trash_rest()`, `batch.sheet()`.

        Args:
            of: a prompt (`{a|b}` is drawn anew for each seed), a request, a workflow with a seed, a job or an output of one.
            count: how many.
            name: what it is found by, `studio.batch(name)`. The same once more goes on with it: what is done or on its way is not made again.
            priority: now, normal or background.
            reuse: None: of a batch without a name that has not ended the same; False: always a new batch.
            fields: changes of the request, e.g. `model="illustrious", aspect="portrait"`.

        Raises:
            RequestInvalid: an unknown field, with the nearest one. As `submit` for a request that no server can run; nothing is accepted then.
        """
        bench = Bench(self._orders, self._ledger)
        return self._made(bench, bench.variations(of, count, fields, self._defaults), name, priority, reuse)

    def sweep(
        self, of: str | Request | Workflow | OutputHandle | JobHandle, *, name: str | None = None, pair: bool = False, priority: Priority = "background",
        reuse: bool | None = None, **axes: Any,
    ) -> Batch:  # fmt: skip
        """One request along axes, every combination, as one batch: `batch.sheet(rows="sampler", columns="cfg")`, `batch.table()`.

        Args:
            of: as for `variations`.
            name: as for `variations`.
            priority: as for `variations`.
            reuse: as for `variations`.
            pair: the first values together, then the second ones, instead of every combination.
            axes: `cfg=[4, 5, 6]`: fields of the request, parameters of a workflow, or words in braces of the prompt: `{hair}` with `hair=["red", "silver"]`. A
                single value holds for all. A seed that is not given is drawn once for all cells.

        Raises:
            As `variations`; also axes of unequal length with `pair`.
        """
        bench = Bench(self._orders, self._ledger)
        return self._made(bench, bench.sweep(of, axes, pair, self._defaults), name, priority, reuse)

    def submit_many(self, requests: Iterable[Request], *, name: str | None = None, priority: Priority = "background", reuse: bool | None = None) -> Batch:
        """Accept many requests at once, all or none, as a batch that is found again by its name.

        Raises:
            As `submit`, for the first request that cannot run.
        """
        cells: list[tuple[dict[str, Any], Request]] = [({}, request) for request in requests]
        base = hashlib.sha256("".join(self._ledger.hash_of(request) for _, request in cells).encode()).hexdigest()[:32]
        return self._batch_of(cells, NewBatch(str(uuid.uuid4()), name or "", base), self._before(base, name, reuse), priority, reuse)

    def keyframes(self, prompt: str, count: int = 4, *, name: str | None = None, **fields: Any) -> Batch:
        """Stills to choose from, seeds one apart: `batch.animate(1, 3)` makes clips of the chosen ones, in the same batch."""
        return self.variations(prompt, count, name=name, priority="normal", **fields)

    def _made(self, bench: Bench, asked: Experiment, name: str | None, priority: Priority, reuse: bool | None) -> Batch:
        before = self._before(asked.base, name, reuse)
        asked = bench.gone_on(asked, before)
        batch = NewBatch(str(uuid.uuid4()), name or "", asked.base, asked.seed, tuple(asked.axes))
        return self._batch_of(bench.requests(asked), batch, before, priority, reuse)

    def _before(self, base: str, name: str | None, reuse: bool | None) -> BatchFacts | None:
        return None if reuse is False else self._ledger.batch_like(base, name)

    def _batch_of(
        self, cells: Sequence[tuple[Mapping[str, Any], Request]], batch: NewBatch, before: BatchFacts | None, priority: Priority, reuse: bool | None
    ) -> Batch:
        """Accept all cells, those with equal graphs as one job."""
        group = before.group_id if before is not None else batch.group_id
        batch = replace(batch, group_id=group, name=before.name if before is not None else batch.name or f"batch {group[:8]}")
        usable, new, known, places = self._usable(), list[NewJob](), dict[str, int](), list[tuple[int, Mapping[str, Any]]]()
        for axes, request in cells:
            job, graph = self._new(request, usable)
            key = json.dumps(graph, sort_keys=True) if graph else self._ledger.hash_of(request)
            if key not in known:
                known[key] = len(new)
                new.append(replace(job, priority=priority, group_id=group, group_name=batch.name, reuse=reuse))
            places.append((known[key], axes))
        with self._accepting(new):
            self._ledger.accept_batch(new, batch, places)
        return Batch(self, group, batch.name)  # type: ignore[arg-type]


class Bench:
    """Where experiments are laid out."""

    def __init__(self, orders: Orders, ledger: Ledger) -> None:
        self._orders, self._ledger = orders, ledger

    def variations(self, of: Any, count: int, fields: Mapping[str, Any], found: Mapping[str, Any]) -> Experiment:
        """One request with seeds one apart; of an output those after its own."""
        request, has_seed = self._request(of, fields, found)
        if count < 1:
            raise RequestInvalid(f"`count` is {count}: it must be at least 1.", field="count")
        first = self._seed_of(request) + isinstance(of, OutputHandle | JobHandle)
        return Experiment(request, has_seed, {"seed": [(first + place) % 2**64 for place in range(count)]})

    def sweep(self, of: Any, axes: Mapping[str, Any], pair: bool, found: Mapping[str, Any]) -> Experiment:
        """One request along axes; what is given as a single value holds for all cells."""
        varied = {name: list(values) for name, values in axes.items() if _is_axis(name, values)}
        fixed = {name: value for name, value in axes.items() if name not in varied}
        request, has_seed = self._request(of, fixed, found)
        self._check_names(request, varied)
        return Experiment(request, has_seed or "seed" in varied, varied, pair)

    def gone_on(self, asked: Experiment, before: BatchFacts | None) -> Experiment:
        """The experiment with the seed of the batch that it goes on with."""
        if before is None or asked.has_seed or before.seed is None:
            return asked
        axes = dict(asked.axes)
        if "seed" in axes:
            axes["seed"] = [(before.seed + place) % 2**64 for place in range(len(axes["seed"]))]
        return Experiment(asked.request.but(seed=before.seed), False, axes, asked.pair)

    def requests(self, asked: Experiment) -> list[tuple[dict[str, Any], Request]]:
        """Each cell's name on every axis, and its request."""
        return [({name: label_of(value) for name, value in place.items()}, self._at(asked.request, place)) for place in asked.places()]

    def _at(self, request: Request, place: Mapping[str, Any]) -> Request:
        words = {name: value for name, value in place.items() if _is_word(request, name)}
        changes = {name: value for name, value in place.items() if name not in words}
        if words:
            changes |= {name: _filled(getattr(request, name), words) for name in ("prompt", "negative_prompt") if getattr(request, name, None)}
            changes["labels"] = {**request.labels, **{name: str(value) for name, value in words.items()}}
        return self._orders.changed(request, changes)

    def _request(self, of: Any, fields: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[Request, bool]:
        """The request that is varied, and whether its seed was given; `found` are the studio's defaults."""
        match of:
            case str():
                kind = VideoRequest if OF_CLIPS & fields.keys() else ImageRequest
                return kind(**self._orders.with_pictures({**found, "prompt": of, **fields})), fields.get("seed") is not None
            case Workflow():
                return self._orders.changed(WorkflowRequest(**found, workflow=of), fields), True
            case Request():
                return self._orders.changed(of, fields), True
            case OutputHandle() | JobHandle():
                job = self._ledger.job(of.job_id if isinstance(of, OutputHandle) else of.id)
                return self._orders.changed(job.request, fields), True
        raise RequestInvalid(f"{type(of).__name__} cannot be varied.", hint="Give a prompt, a request, a workflow, a job or an output.")

    def _seed_of(self, request: Request) -> int:
        if isinstance(request, WorkflowRequest):
            parameter = Workflow.load(request.workflow).parameters.get("seed")
            if parameter is None or not isinstance(parameter.value, int):
                raise RequestInvalid("This workflow has no seed to vary.", hint="studio.sweep varies any of its parameters.")
            return parameter.value
        return int(getattr(request, "seed", None) or 0)

    def _check_names(self, request: Request, axes: Mapping[str, Any]) -> None:
        """Refuse an axis that is neither a field nor a word in braces; a workflow checks its own."""
        if isinstance(request, WorkflowRequest):
            return
        for name in axes:
            if name not in type(request).model_fields and not _is_word(request, name):
                near = fuzzy.extractOne(name, list(type(request).model_fields), score_cutoff=60)
                hint = (f"Did you mean {near[0]}? " if near else "") + f"A word of the prompt becomes an axis when it stands there in braces: {{{name}}}."
                raise RequestInvalid(f"'{name}' is no field, and {{{name}}} is not in the prompt.", field=name, hint=hint)


def _is_axis(name: str, values: Any) -> bool:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable) or hasattr(values, "getbands"):
        return False
    return name != "loras" or not all(isinstance(one, Lora) for one in values)  # several LoRAs at once are one value


def _is_word(request: Request, name: str) -> bool:
    said = (getattr(request, "prompt", None) or "") + (getattr(request, "negative_prompt", None) or "")
    return name not in type(request).model_fields and f"{{{name}}}" in said


def _filled(text: str, words: Mapping[str, Any]) -> str:
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def label_of(value: Any) -> str | int | float | bool | None:
    """What a value is called on a sheet, in a table and in the ledger."""
    match value:
        case str() | int() | float() | None:
            return value
        case Lora():
            return f"{value.name}:{value.strength:g}"
        case ImageRef():
            return value.sha256[:8]
        case OutputHandle():
            return value.file.name
        case list() | tuple():
            return " + ".join(str(label_of(one)) for one in value) or "none"
        case _:
            return str(getattr(value, "filename", None) or value)[:80]
