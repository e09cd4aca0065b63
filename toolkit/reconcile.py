"""By which rules ledger, queue, history and sockets decide a fate: one pure function of the evidence.

Used when a feeder starts, when its socket comes back and by its periodic sweep. An unreachable server decides nothing, so it never gets
here. Knows no I/O: the feeder gathers the evidence, in the order queue first, history second (a job moves from one to the other).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from toolkit.protocol import HistoryEntry

ABSENT_FOR_S = 2.0  # a prompt between queue and history is in neither for some milliseconds; a blocked worker for longer


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of one attempt after a round of questions."""

    acknowledged: bool
    history: HistoryEntry | None = None
    runs: bool = False
    place: int | None = None
    absences: int = 0
    absent_for_s: float = 0.0
    post_open: bool = False
    forgot: bool = False
    not_sent: bool = False
    cancel_asked: bool = False
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
    """The fate of an attempt. History wins over everything; absence counts only twice, 2 s apart, with no POST of ours open."""
    if evidence.history is not None:
        return Fate.ENDED
    if evidence.runs:
        return Fate.RUNNING
    if evidence.place is not None:
        return Fate.PENDING
    if evidence.not_sent:
        return Fate.CANCELLED if evidence.cancel_asked else Fate.SEND_AGAIN
    if evidence.cancel_asked and evidence.deleted and evidence.absences and not evidence.post_open:
        return Fate.CANCELLED
    if evidence.post_open or evidence.absences < 2 or evidence.absent_for_s < ABSENT_FOR_S:
        return Fate.WAIT
    if evidence.cancel_asked:
        return Fate.CANCELLED
    if not evidence.acknowledged:
        return Fate.NEVER_ARRIVED
    return Fate.LOST if evidence.forgot else Fate.REMOVED
