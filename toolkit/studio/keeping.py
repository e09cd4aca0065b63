"""What a studio keeps: judgements, the bin, the gallery, contact sheets, copies for elsewhere, and what is deleted for good.

Owns how a file goes to the bin and back: the ledger is told first, so that a crash in between leaves a file that is still found. Which outputs a
gallery shows is a question of the log.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from toolkit.errors import OutputError, RequestInvalid
from toolkit.jobs import OutputFile, Rating
from toolkit.ledger import Backup, Ledger
from toolkit.outputs import OutputStore, sidecar_of
from toolkit.sheets import Sheet
from toolkit.studio.handles import JobHandle, OutputHandle
from toolkit.studio.standing import Standing

if TYPE_CHECKING:
    from toolkit.stats import Stats
    from toolkit.studio.batches import Batch

Verdict: TypeAlias = Literal["keep", "reject"]
STARS = range(1, 6)
REASONS = ("hands", "face", "anatomy", "style", "blur", "off_prompt")  # what people say most often; any other word will do


class Keeping:
    """The half of a Studio that looks after what was made."""

    _ledger: Ledger
    _outputs: OutputStore
    _standing: Standing
    _log: Callable[[], Stats]

    # ---- judgements ---------------------------------------------------------------------------------------------------

    def _judge(
        self, outputs: Iterable[OutputHandle], verdict: Verdict | None, *, stars: int | None = None, reasons: Sequence[str] = (),
        comment: str | None = None, person: str = "owner",
    ) -> None:  # fmt: skip
        """Write down what a person thinks of outputs; None takes an earlier judgement back."""
        if stars is not None and stars not in STARS:
            raise RequestInvalid(f"`stars` is {stars}: it must be from 1 to 5.", field="stars")
        about = (person, verdict, stars, tuple(reasons), comment, time.time())
        self._ledger.rate(*(Rating(output.job_id, output.file.number, *about) for output in outputs))

    def _verdict(self, output: OutputHandle) -> Verdict | None:
        return self._ledger.verdicts([output.job_id]).get((output.job_id, output.file.number))  # type: ignore[return-value]

    # ---- the bin ------------------------------------------------------------------------------------------------------

    def _trash(self, outputs: Iterable[OutputHandle]) -> int:
        """Move files to the bin; those that are there, or gone, stay as they are."""
        return self._move([output for output in self._fresh(outputs) if output.file.disk == "present"], "trashed", self._outputs.trash, "present")

    def restore(self, *outputs: OutputHandle) -> int:
        """Bring files back from the bin, all of it if none are named; returns how many."""
        chosen = self._fresh(outputs) if outputs else self.trashed()
        return self._move([output for output in chosen if output.file.disk == "trashed"], "present", self._outputs.restore, "trashed")

    def trashed(self) -> Sequence[OutputHandle]:
        """What lies in the bin, newest first."""
        return self._handles(self._ledger.files("trashed"))

    def empty_trash(self) -> int:
        """Delete what lies in the bin for good; returns how many bytes that was."""
        outputs, freed = self.trashed(), 0
        for output in outputs:
            freed += self._outputs.delete(output.path)
        self._ledger.mark((output.job_id, output.file.number, "missing") for output in outputs)
        return freed

    def _move(self, outputs: Sequence[OutputHandle], disk: str, move: Callable[[str], None], before: str) -> int:
        self._ledger.mark((output.job_id, output.file.number, disk) for output in outputs)
        moved = 0
        try:
            for output in outputs:
                move(output.file.name)
                moved += 1
        except OutputError:
            self._ledger.mark((output.job_id, output.file.number, before) for output in outputs[moved:])
            raise
        return moved

    def _fresh(self, outputs: Iterable[OutputHandle]) -> list[OutputHandle]:
        """The same outputs as the ledger has them now: a handle may be older than its file's last move."""
        named = {(output.job_id, output.file.number) for output in outputs}
        jobs = self._ledger.these([job_id for job_id, _ in named])
        return self._handles((job.id, file) for job in jobs for file in job.files if (job.id, file.number) in named)

    def _handles(self, files: Iterable[tuple[str, OutputFile]]) -> list[OutputHandle]:
        return [OutputHandle(file, job_id, self) for job_id, file in files]  # type: ignore[arg-type]

    def delete(self, *jobs: JobHandle | str) -> int:
        """Delete jobs for good: their rows, here and in the log, and their files, the bin's too. Returns how many bytes that was.

        Raises:
            RequestInvalid: one of them has not ended; nothing is deleted then. JobUnknown: there is none of that id.
        """
        found = [self._ledger.job(job if isinstance(job, str) else job.id) for job in jobs]
        self._ledger.forget([job.id for job in found])
        return sum(self._outputs.delete(file.path) for job in found for file in job.files)

    def disk_use(self) -> Any:
        """How many files each project has, and megabytes: present, trashed, missing. DuckDB's relation."""
        query = "from outputs join jobs using (job_id) select project, disk, count(*) as files, round(sum(outputs.size_bytes) / 1e6, 1) as megabytes"
        return self._log().sql(f"{query} group by all order by project, disk")

    # ---- the home -----------------------------------------------------------------------------------------------------

    def backup(self, path: str | PathLike[str], *, files: bool = True, tell: Callable[[str], None] = print) -> Backup:
        """Copy the whole home to a new folder while jobs go on; the copy opens as a home, and holds its open jobs until `resume`.

        Args:
            path: a folder that does not exist or is empty.
            files: whether to copy pictures, clips and inputs too, or the ledger alone.
            tell: hears every 2 s how far it is.

        Raises:
            RequestInvalid: the folder is not new. HomeUnusable: it cannot be written; nothing half is left there.
        """
        return self._ledger.back_up(Path(path), files=files, tell=tell)

    def _held(self) -> str | None:
        return self._standing.held()

    # ---- find ---------------------------------------------------------------------------------------------------------

    def gallery(
        self, *, project: str | None = None, verdict: Verdict | None = None, search: str | None = None, where: str | None = None, limit: int = 200,
        **which: Any,
    ) -> Gallery:  # fmt: skip
        """The pictures and clips of this home, newest first, as one card with hearts and bins; drawings of the engine are left out.

        Args:
            project: of this one only.
            verdict: keep or reject.
            search: a part of prompt, model, LoRA, batch or file name.
            where: a condition in SQL over the tables jobs and outputs, e.g. "steps > 20 and outputs.width > 800".
            limit: at most so many.
            which: as for `ask`: `model=`, `lora=`, `batch=`, `since=timedelta(days=7)`, any column of jobs; `simulated=True` takes in the engine's.

        Raises:
            RequestInvalid: no such column, with the nearest one. QueryInvalid: `where` is no condition, in DuckDB's words.
        """
        from toolkit.analysis import outputs_where

        about = {**({"project": project} if project is not None else {}), **which}
        found = outputs_where(self._log(), about, verdict=verdict, search=search, where=where, limit=limit)
        jobs = {job.id: job for job in self._ledger.these([job_id for job_id, _ in found])}
        files = {(job.id, file.number): file for job in jobs.values() for file in job.files}
        return Gallery(self._handles((job_id, files[job_id, number]) for job_id, number in found if (job_id, number) in files))

    # ---- sheets and copies --------------------------------------------------------------------------------------------

    def _keep_sheet(self, batch: Batch, sheet: Sheet) -> OutputHandle:
        project = next((handle.job.request.project for handle in batch.jobs), "default")
        name = f"{re.sub(r'[^a-z0-9]+', '-', batch.name.lower()).strip('-')[:40] or 'batch'}-{batch.id[:8]}.png"
        return OutputHandle(self._outputs.keep_sheet(project, name, sheet.draw()), "")

    def export_files(self, path: str | PathLike[str], *outputs: OutputHandle) -> str:
        """Write a zip of files, each with its sidecar beside it; returns where it is.

        Raises:
            OutputError: it cannot be written there, or a file is gone.
        """
        target = Path(path).expanduser().absolute()
        part = target.with_name(f".{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:  # pictures and clips are compressed as they are
                for output in outputs:
                    archive.write(output.path, output.file.name)
                    with contextlib.suppress(FileNotFoundError):
                        archive.write(sidecar_of(Path(output.path)), sidecar_of(Path(output.file.name)).as_posix())
            os.replace(part, target)
        except OSError as error:
            what = error.filename or target
            raise OutputError(f"{target} cannot be written: {what}: {error.strerror}.", path=str(target)) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        return str(target)


class Gallery(list[OutputHandle]):
    """Outputs that show themselves as one card."""

    def _ipython_display_(self) -> None:
        from toolkit.widgets import GalleryCard

        studio = self[0]._handle()._studio if self else None
        jobs = studio._ledger.these(output.job_id for output in self) if studio is not None else []
        verdicts = studio._ledger.verdicts([job.id for job in jobs]) if studio is not None else {}
        GalleryCard(self, {job.id: job.prompt for job in jobs}, verdicts).show()

    def __repr__(self) -> str:
        return f"{len(self)} outputs" + "".join(f"\n{output!r}" for output in self[:20]) + ("\n..." if len(self) > 20 else "")
