"""Batch: many jobs under one name, found again by it: keyframes, variations, sweeps.

Owns what one does with a group as a whole, and the numbers its pictures go by. What a batch is made of is in the ledger, so it survives kernels.
Awaiting one never raises for single jobs. How it looks is widgets', what stands on its sheet is sheets.py's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Self

from toolkit.errors import JobError, JobTimeout, OutputError, RequestInvalid
from toolkit.jobs import Job, OutputFile
from toolkit.sheets import Picture, Sheet, wrapped
from toolkit.studio.handles import JobHandle, OutputHandle

if TYPE_CHECKING:
    from toolkit.studio.studio import Studio

TABLE = """with cells as (select unnest($cells) as cell)
from cells join jobs on jobs.job_id = cell.job_id
left join (from outputs select job_id, min_by(name, output) as file, max_by(verdict, verdict = 'keep') as verdict where not temporary group by job_id) as kept
  on kept.job_id = jobs.job_id
select {axes}jobs.job_id, status, model, seed, run_s, step_s, total_s, warmth, verdict, file order by cell.place"""


class Batch:
    """Many jobs, one name, one card. Awaiting it never raises for single jobs: failures are in `.failed`."""

    def __init__(self, studio: Studio, group_id: str, name: str) -> None:
        self._studio, self.id, self.name = studio, group_id, name
        self._card: Any = None

    @property
    def axes(self) -> Sequence[str]:
        """The names along which it was swept; `seed` for variations."""
        found = self._studio._ledger.batch(self.id)
        return found.axes if found is not None else ()

    @property
    def cells(self) -> Sequence[tuple[Mapping[str, Any], JobHandle]]:
        """Each place in order: what it is called on the axes, and its job; equal ones share theirs. Later jobs stand behind, without axes."""
        return [(cell.axes, JobHandle(self._studio, cell.job_id)) for cell in self._studio._ledger.cells(self.id)]

    @property
    def jobs(self) -> Sequence[JobHandle]:
        """Its jobs, in the order they were asked for, each once."""
        return [JobHandle(self._studio, job_id) for job_id in dict.fromkeys(cell.job_id for cell in self._studio._ledger.cells(self.id))]

    def _now(self) -> list[Job]:
        """Its jobs as they are now, all read at once."""
        ids = [handle.id for handle in self.jobs]
        found = {job.id: job for job in self._studio._ledger.these(ids)}
        return [found[job_id] for job_id in ids if job_id in found]

    def __len__(self) -> int:
        return len(self.jobs)

    def __iter__(self) -> Iterator[JobHandle]:
        return iter(self.jobs)

    def __getitem__(self, index: int) -> JobHandle:
        return self.jobs[index]

    def __await__(self) -> Generator[Any, None, Self]:
        return self._until_final().__await__()

    async def _until_final(self) -> Self:
        while (last := self._last_open()) is not None:
            with contextlib.suppress(JobError):
                await last._until_done()
        return self

    def _last_open(self) -> JobHandle | None:
        """The last of its jobs that has not ended: who waits for that one need not ask for each of a thousand before it."""
        found = self._studio._ledger.last_open(self.id)
        return JobHandle(self._studio, found) if found is not None else None

    def wait(self, timeout_s: float | None = None) -> Self:
        """Block until every job has ended.

        Raises:
            JobTimeout: after `timeout_s` seconds; the jobs go on.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (last := self._last_open()) is not None:
            try:
                last.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
            except JobTimeout:
                if not last.job.is_final:
                    raise
            except JobError:
                continue
        return self

    # ---- its files ----------------------------------------------------------------------------------------------------

    @property
    def outputs(self) -> Sequence[OutputHandle]:
        """Every file that is not a preview, in the order of the jobs."""
        return list(self.numbered.values())

    @property
    def numbered(self) -> Mapping[int, OutputHandle]:
        """The files by the numbers under them on card and sheet: from 1, and a job that has none yet keeps room for what it will make."""
        return {first + place: OutputHandle(file, job.id, self._studio) for job, first, files in with_numbers(self._now()) for place, file in enumerate(files)}

    @property
    def kept(self) -> Sequence[OutputHandle]:
        """What was picked: on the card, on the page or here."""
        outputs = self.outputs
        verdicts = self._studio._ledger.verdicts([output.job_id for output in outputs])
        return [output for output in outputs if verdicts.get((output.job_id, output.file.number)) == "keep"]

    @property
    def failed(self) -> Sequence[JobHandle]:
        """The jobs that ended and did not end well."""
        return [JobHandle(self._studio, job.id) for job in self._now() if job.is_final and not job.is_done]

    def keep(self, *numbers: int, stars: int | None = None) -> Sequence[OutputHandle]:
        """Keep the files with these numbers, as the hearts do, and return them.

        Raises:
            RequestInvalid: a number that no file has, or none at all.
        """
        chosen = self._chosen(numbers, self.numbered, "file")
        self._studio._judge(chosen, "keep", stars=stars)
        return chosen

    def reject(self, *numbers: int, reasons: Sequence[str] = ()) -> Sequence[OutputHandle]:
        """Reject the files with these numbers, and return them.

        Raises:
            RequestInvalid: a number that no file has, or none at all.
        """
        chosen = self._chosen(numbers, self.numbered, "file")
        self._studio._judge(chosen, "reject", reasons=reasons)
        return chosen

    def trash_rest(self) -> int:
        """Put every file that is not kept into the bin of the home; `studio.restore` brings it back. Returns how many.

        Raises:
            RequestInvalid: none is kept, so that all would go.
        """
        kept = {output.path for output in self.kept}
        if not kept:
            raise RequestInvalid(f"Nothing of '{self.name}' is kept yet: everything would go.", hint="Keep some first: batch.keep(3, 11).")
        return self._studio._trash([output for output in self.outputs if output.path not in kept])

    def animate(self, *numbers: int, prompt: str | None = None, **fields: Any) -> Self:
        """Animate the stills with these numbers, as jobs of this batch; `fields` are VideoRequest's.

        Raises:
            RequestInvalid: a number that no still has, or none at all. ModelUnknown: no clip family can run, with the files to get.
        """
        for still in self._chosen(numbers, {number: output for number, output in self.numbered.items() if output.file.kind == "image"}, "still"):
            still.animate(prompt, **fields)
        return self

    def _chosen(self, numbers: Sequence[int], there: Mapping[int, OutputHandle], word: str) -> list[OutputHandle]:
        wrong = [number for number in numbers if number not in there]
        if wrong or not numbers:
            said = f"There is no {word} number {wrong[0]}" if wrong else f"No {word} is chosen"
            raise RequestInvalid(f"{said}: this batch has {len(there)} so far.", field="numbers", hint="The numbers stand under them, from 1.")
        return [there[number] for number in numbers]

    def export(self, path: str | PathLike[str], kept_only: bool = True) -> str:
        """Write a zip of the kept files, or of all, with what each was made from beside it; returns where it is.

        Raises:
            RequestInvalid: none is kept. OutputError: it cannot be written there.
        """
        chosen = self.kept if kept_only else self.outputs
        if not chosen:
            raise RequestInvalid(f"Nothing of '{self.name}' is kept.", hint="Keep some first, or pass kept_only=False.")
        return self._studio.export_files(path, *chosen)

    # ---- as a whole ---------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Take every job that has not ended out of the line, or stop it."""
        for job in self._now():
            if not job.is_final:
                self._studio._ledger.ask_cancel(job.id)

    def retry_failed(self) -> Self:
        """Ask for what failed once more; the new jobs take the places of the old."""
        for handle in self.failed:
            handle.retry()
        return self

    def table(self) -> Any:
        """One row a cell: its axes, then how it ended, its times in seconds, verdict and file; DuckDB's relation: `.df()`, `.pl()`."""
        cells, axes = self.cells, self.axes
        mixed = {name for name in axes if len({isinstance(place.get(name), str | None) for place, _ in cells}) > 1}
        told = [
            {"place": number, "job_id": handle.id, **{name: str(place.get(name)) if name in mixed else place.get(name) for name in axes}}
            for number, (place, handle) in enumerate(cells)
        ]
        columns = "".join(f'cell."{name}" as "{name}", ' for name in axes if name != "seed")
        return self._studio.sql(TABLE.format(axes=columns), cells=told)

    def sheet(self, rows: str | None = None, columns: str | None = None) -> OutputHandle:
        """A contact sheet with labelled axes, kept beside the project's pictures; what failed is shown with its reason.

        Args:
            rows: the axis that goes down; None: the first, if there are several.
            columns: the axis that goes across; None: the last one. Further axes are told in the rows' labels.

        Raises:
            RequestInvalid: no such axis.
        """
        return self._studio._keep_sheet(self, self._laid_out(rows, columns))

    def _laid_out(self, rows: str | None, columns: str | None) -> Sheet:
        found = {job.id: job for job in self._now()}
        cells = [(axes, found[handle.id]) for axes, handle in self.cells if handle.id in found]
        names = self.axes
        wrong = next((name for name in (rows, columns) if name is not None and name not in names), None)
        if wrong is not None:
            raise RequestInvalid(f"'{wrong}' is no axis of '{self.name}'.", hint=f"Its axes: {', '.join(names) or 'none'}.", field="axis")
        title = f"{self.name} · {len(cells)} cells"
        if len(names) < 2 and rows is None and columns is None:
            numbers = {output.path: number for number, output in self.numbered.items()}
            pictures = [(picture, _caption(numbers.get(path), place)) for place, job in cells for path, picture in _pictures(job)]
            return wrapped(title, [picture for picture, _ in pictures], [caption for _, caption in pictures])
        across = columns or next(name for name in reversed(names) if name != rows)
        down = [name for name in names if name not in (across, rows)]
        down = [rows, *down] if rows is not None else down
        placed = [(axes, job) for axes, job in cells if axes]
        labels = [(", ".join(_value(place, name, named=len(down) > 1) for name in down), _value(place, across)) for place, _ in placed]
        heads = [list(dict.fromkeys(side)) for side in zip(*labels, strict=True)]
        at = [(heads[0].index(row), heads[1].index(column)) for row, column in labels]
        laid = {where: _pictures(job)[0][1] for where, (_, job) in zip(at, placed, strict=True)}
        return Sheet(title, heads[0], heads[1], laid, row_axis=" / ".join(down), column_axis=across)

    # ---- in a notebook ------------------------------------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        self._shown().show()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self._shown()._repr_mimebundle_(include=include, exclude=exclude)

    def _shown(self) -> Any:
        """The card, made when first shown."""
        from toolkit.widgets import BatchCard

        if self._card is None:
            self._card = BatchCard(self)
        return self._card

    def __repr__(self) -> str:
        jobs = self._now()
        ended, failed = sum(job.is_final for job in jobs), sum(job.is_final and not job.is_done for job in jobs)
        return f"batch '{self.name}': {ended} of {len(jobs)} ended" + (f", {failed} not well" if failed else "")


def with_numbers(jobs: Iterable[Job]) -> Iterator[tuple[Job, int, list[OutputFile]]]:
    """Each job with the number of its first file, and its files without previews; one that has none yet keeps room for what it will make."""
    number = 1
    for job in jobs:
        files = [file for file in job.files if not file.temporary]
        yield job, number, files
        number += len(files) if job.is_done else max(len(files), getattr(job.request, "batch_size", 1))


def _pictures(job: Job) -> list[tuple[str, Picture]]:
    """A job's pictures with their paths, or what there is to say instead."""
    files = [file for file in job.files if not file.temporary and file.kind in ("image", "video")]
    if not files:
        return [("", (job.error or str(job.status)) if job.is_final else f"{job.status}")]
    return [(file.path, _opened(file.path, file.kind)) for file in files]


def _opened(path: str, kind: str) -> Picture:
    from toolkit.thumbnails import open_image

    try:
        return open_image(path, kind)
    except OutputError:
        return "the file is gone"


def _value(place: Mapping[str, Any], name: str, *, named: bool = False) -> str:
    value = place.get(name)
    told = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{name} {told}" if named else told


def _caption(number: int | None, place: Mapping[str, Any]) -> str:
    said = ", ".join(_value(place, name, named=True) for name in place)
    return " · ".join(part for part in (str(number or ""), said) if part)
