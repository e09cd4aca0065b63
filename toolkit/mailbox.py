"""What one watcher of the feed still has to be told: bounded, in order, never going backwards.

Owns the rules of a watcher: a job's snapshot before its updates, fractions that never fall, nothing older than what was already told, progress
of the same job replaced by the newer one. Knows no socket: the feed puts updates in and sends what it takes out.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

ROOM = 1000  # messages; a healthy watcher has a handful
SEEN_LIMIT = 4096  # jobs whose last state is remembered; ended ones are forgotten first


@dataclass(frozen=True, slots=True)
class Update:
    """News of one job: with `job` its whole state, without it its progress alone; both in the shapes of REST."""

    job_id: str
    progress: dict[str, Any]
    job: dict[str, Any] | None = None
    revision: int = 0
    is_final: bool = False


@dataclass(slots=True)
class _Seen:
    """What the watcher was last told of a job."""

    revision: int
    fraction: float
    is_final: bool


class Mailbox:
    """The queue of one watcher."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._waiting: OrderedDict[tuple[str, Any], dict[str, Any]] = OrderedDict()
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._ids: set[str] = set()
        self._everything = False
        self._counted = 0
        self.sequence = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether who can wait should."""
        return len(self._waiting) >= self._room

    def subscribe(self, job_id: str) -> None:
        """Let in news of this job, or of all with `*`."""
        if job_id == "*":
            self._everything = True
        else:
            self._ids.add(job_id)

    def unsubscribe(self, job_id: str) -> None:
        """Let in no more news of this job; `*` ends all subscriptions."""
        if job_id == "*":
            self._everything = False
            self._ids.clear()
        self._ids.discard(job_id)

    def offer(self, update: Update, *, snapshot: bool = False) -> bool:
        """Take news in if they are wanted and new; False when there is no room and no progress left to drop."""
        if not self._everything and update.job_id not in self._ids:
            return True
        seen = self._seen.get(update.job_id)
        if update.job is None:
            if seen is not None and not seen.is_final:  # before its snapshot and after its end, progress says nothing
                self._put_progress(update, seen)
        elif seen is None or update.revision > seen.revision or (snapshot and update.revision == seen.revision):
            self._put_job(update, seen)
        return self._make_room()

    def answer(self, message: dict[str, Any]) -> None:
        """Put in what the watcher asked for; it waits for room before it asks more."""
        self._counted += 1
        self._waiting["answer", self._counted] = message

    def answer_progress(self, update: Update) -> None:
        """Put in the progress the watcher asked for, subscribed or not."""
        seen = self._seen.get(update.job_id) or _Seen(0, 0.0, False)
        self.answer({"type": "progress_update", "job_id": update.job_id, "progress": _raised(update.progress, seen), "sequence": 0})

    def take(self) -> dict[str, Any] | None:
        """The next message to send, numbered; None when there is nothing to tell."""
        if not self._waiting:
            return None
        _, message = self._waiting.popitem(last=False)
        if "sequence" in message:
            self.sequence += 1
            message["sequence"] = self.sequence
        return message

    def _put_progress(self, update: Update, seen: _Seen) -> None:
        progress = _raised(update.progress, seen)
        key = ("progress", update.job_id)
        self._waiting.pop(key, None)  # the newer one goes to the end, so that a job_update between the two stays before it
        self._waiting[key] = {"type": "progress_update", "job_id": update.job_id, "progress": progress, "sequence": 0}

    def _put_job(self, update: Update, seen: _Seen | None) -> None:
        seen = seen or _Seen(0, 0.0, False)
        progress = _raised(update.progress, seen)
        self._seen[update.job_id] = _Seen(update.revision, seen.fraction, update.is_final)
        self._forget()
        self._counted += 1
        self._waiting["job", self._counted] = {"type": "job_update", "job": {**(update.job or {}), "progress": progress}, "sequence": 0}

    def _make_room(self) -> bool:
        if len(self._waiting) <= self._room:
            return True
        oldest = next((key for key in self._waiting if key[0] == "progress"), None)
        if oldest is None:
            return False
        del self._waiting[oldest]
        return True

    def _forget(self) -> None:
        if len(self._seen) > SEEN_LIMIT:
            ended = next((job_id for job_id, seen in self._seen.items() if seen.is_final), None)
            if ended is not None:
                del self._seen[ended]


def _raised(progress: dict[str, Any], seen: _Seen) -> dict[str, Any]:
    """The progress with a fraction no lower than the watcher has seen; remembers it."""
    seen.fraction = max(seen.fraction, progress["fraction"])
    return {**progress, "fraction": seen.fraction}
