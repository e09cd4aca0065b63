"""By which rules ledger, queue, history and sockets decide a fate: one pure function of the evidence.

Used when a feeder starts, when its socket comes back and by its periodic sweep. An unreachable server decides nothing, so it never gets
here. Knows no I/O: the feeder gathers the evidence, in the order queue first, history second (a job moves from one to the other).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from toolkit.protocol import Whereabouts

ABSENT_FOR_S = 2.0  # a prompt between queue and history is in neither for some milliseconds; a blocked worker for longer


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one attempt after a round of questions."""

    acknowledged: bool
    where: Whereabouts = Whereabouts()  # noqa: RUF009 - frozen
    absences: int = 0
    absent_for_s: float = 0.0
    forgot: bool = False
    not_sent: bool = False  # no byte of the POST can have left us
    stopping: bool = False  # a cancel was asked, or its time is up
    deleted: bool = False  # our delete was answered before this round began


class Fate(Enum):
    """What follows from the evidence."""

    WAIT = "wait: ask again"
    PENDING = "it waits on the server"
    RUNNING = "the server works on it"
    ENDED = "history has it: classify and fetch"
    SEND_AGAIN = "it never left us: send with the same id"
    NEVER_ARRIVED = "never acknowledged and in neither: it did not arrive"
    LOST = "the server forgot it"
    REMOVED = "somebody removed it"
    CANCELLED = "it was cancelled before it ran"


def judge(evidence: Evidence) -> Fate:
    """The fate of an attempt. History wins over everything; absence counts only twice, 2 s apart, and after our POST was answered or given up."""
    if evidence.where.history is not None:
        return Fate.ENDED
    if evidence.where.runs:
        return Fate.RUNNING
    if evidence.where.waits:
        return Fate.PENDING
    if evidence.not_sent:
        return Fate.CANCELLED if evidence.stopping else Fate.SEND_AGAIN
    if evidence.stopping and evidence.deleted and evidence.absences:
        return Fate.CANCELLED
    if evidence.absences < 2 or evidence.absent_for_s < ABSENT_FOR_S:
        return Fate.WAIT
    if evidence.stopping:
        return Fate.CANCELLED
    if not evidence.acknowledged:
        return Fate.NEVER_ARRIVED
    return Fate.LOST if evidence.forgot else Fate.REMOVED
