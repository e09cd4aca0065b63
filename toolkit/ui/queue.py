"""The Queue tab: everybody's line in the order it will run, with true places and times; to guests others are "someone".

Owns the table. Knows no order: places and times are the studio's.
"""

from __future__ import annotations

from toolkit.jobs import Job, JobStatus
from toolkit.progress import Progress
from toolkit.studio import Studio
from toolkit.ui import cards
from toolkit.visitors import THE_OWNER, Visitor

SHOWN = 50
EMPTY = "What anybody asks for, here, in a notebook or by REST, stands here until it is done."


class Line:
    """Everybody's open jobs."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def shown(self, visitor: Visitor = THE_OWNER) -> str:
        """The line as HTML, the first of it where it is long."""
        jobs = self._studio.queue()
        waiting = self._studio._standing.waiting()
        rows = [_row(place, job, waiting.get(job.id) or self._studio._progress_of(job), visitor) for place, job in enumerate(jobs[:SHOWN], 1)]
        if not rows:
            return (
                '<p class="say">Nothing is in line.</p><p class="hush">What anybody asks for here, in a notebook or by REST stands here until it is done.</p>'
            )
        more = cards.note(f"and {len(jobs) - SHOWN} more") if len(jobs) > SHOWN else ""
        head = "".join(f'<th scope="col">{name}</th>' for name in ("Place", "Who", "What", "When", "Cancel"))
        table = f'<table class="line"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        return f'<h2>{len(jobs)} in line</h2><div class="wide" tabindex="0" role="region" aria-label="The line">{table}</div>{more}'


def _row(place: int, job: Job, progress: Progress, visitor: Visitor) -> str:
    mine = visitor.only in (None, job.person)
    what = cards.asked(job)[:120] if mine else ("a clip" if job.kind == "video" else "a picture")
    shown = cards.button("show", job, cards.text(what)) if mine else cards.text(what)
    stop = cards.button("cancel", job, "Cancel", label=f"Cancel {what[:40]}") if mine and not job.cancel_asked else ""
    cells = (str(place), cards.text(visitor.called(job.person)), shown, cards.text(_when(job, progress)) + _bar(job, progress), stop)
    return f"<tr{' class=mine' if visitor.only == job.person else ''}>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _when(job: Job, progress: Progress) -> str:
    if job.cancel_asked:
        return "cancelling"
    if job.status in (JobStatus.CREATED, JobStatus.QUEUED):
        return progress.stalled or cards.place_in_line(progress).partition(", ")[2] or "waiting"
    done = f"{progress.fraction:.0%}" if progress.fraction else ""
    return " · ".join(part for part in (cards.WORDS[JobStatus(job.status)].lower(), done, cards.time_left(progress)) if part)


def _bar(job: Job, progress: Progress) -> str:
    return cards.bar(progress.fraction, "Progress") if job.status == JobStatus.RUNNING else ""
