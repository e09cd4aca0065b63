"""The common order: which job goes next to which server, and when. Pure, so that every process sees the same line.

Owns four rules. Priority comes first, and who has waited too long in the background is background no more. Within a priority people take turns.
Neighbours that share what a server has loaded go together, as long as nobody is thereby held back by more than a stated time. Of several servers
a job goes to the one that ends it first, and clips leave one server to pictures. Times are what feeders say; unknown ones count as equal.
"""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeAlias

from toolkit.jobs import IN_FLIGHT, JobStatus, OpenJob

PATIENCE_S = 120.0  # how much later than by arrival a job may start because others shared what was loaded
STARVED_S = 1800.0  # how long a background job waits before it takes its turn among the others
UNKNOWN_S = 10.0  # what a job of unknown length counts as, when servers are compared
BACKGROUND = 2
QUEUED = str(JobStatus.QUEUED)  # compared a thousand times a second
WHAT_MATTERS = attrgetter("servers", "person", "priority", "loads", "kind")


class Takes(NamedTuple):
    """Seconds a recipe takes on a server that has its models loaded, and on one that has not."""

    warm_s: float
    cold_s: float


class Sent(NamedTuple):
    """A job that was sent to a server: its place of arrival, its priority, and the seconds it took or will take."""

    seq: int
    priority: int
    took_s: float


@dataclass(frozen=True, slots=True)
class ServerLine:
    """What the order needs to know of one server; its feeder says it, everybody reads it."""

    url: str
    busy_s: float = 0.0  # until what it has is done
    loaded: Sequence[str] = ()
    sent: Sequence[Sent] = ()
    takes: Mapping[str, Takes] = field(default_factory=dict)
    usable: bool = True
    patience_s: float = PATIENCE_S

    def takes_s(self, job: OpenJob, loaded: Sequence[str] | None = None) -> float | None:
        """What a job will take here, after what is loaded; None if unknown."""
        known = self.takes.get(job.recipe_key)
        if known is None:
            return None
        return known.warm_s if set(job.loads) <= set(self.loaded if loaded is None else loaded) else known.cold_s

    def dump(self) -> str:
        """As JSON, for the live board."""
        told = {name: getattr(self, name) for name in ("url", "busy_s", "loaded", "sent", "usable", "patience_s")}
        return json.dumps({**told, "takes": dict(self.takes)}, separators=(",", ":"))

    @classmethod
    def load(cls, text: str) -> ServerLine:
        """What `dump` wrote."""
        told = json.loads(text)
        takes = {key: Takes(*pair) for key, pair in told["takes"].items()}
        return cls(**{**told, "loaded": tuple(told["loaded"]), "sent": tuple(Sent(*sent) for sent in told["sent"]), "takes": takes})


class Turn(NamedTuple):
    """A waiting job with its server; seconds from now, None where a length before it is unknown."""

    job: OpenJob
    server_url: str
    ahead: int
    starts_s: float | None
    takes_s: float | None


def in_line(jobs: Sequence[OpenJob], now: float = 0.0) -> list[OpenJob]:
    """The waiting jobs of a home by priority, turn and arrival; `now` in unix seconds."""
    return [job for _, job in _placed(jobs, now)]


def next_job(jobs: Sequence[OpenJob], server_url: str, told: Callable[[], Sequence[ServerLine]] = tuple, now: float = 0.0) -> OpenJob | None:
    """The job this server should get now; None when nothing waits for it, or another one ends all that waits sooner.

    `told` is asked for the servers where they matter: not where all that waits is alike and for this one, a thousand jobs of one sweep, as a rule.
    """
    waiting = _waiting(jobs)
    if len(alike := set(map(WHAT_MATTERS, waiting))) == 1 and alike.pop()[0] == (server_url,):
        return min(waiting, key=attrgetter("seq"))
    lines = _Lines(jobs, told(), now, also=server_url)
    return next((turn.job for turn in lines.turns() if turn.server_url == server_url), None)


def turns(jobs: Sequence[OpenJob], servers: Sequence[ServerLine] = (), now: float = 0.0, limit: int | None = None) -> list[Turn]:
    """Every waiting job with its server, its place and its time, in the order they will be sent; the first `limit` of them."""
    return list(itertools.islice(_Lines(jobs, servers, now).turns(), limit))


def _waiting(jobs: Sequence[OpenJob]) -> list[OpenJob]:
    return [job for job in jobs if job.status == QUEUED and not job.cancel_asked]


def _priority(job: OpenJob, now: float) -> int:
    return BACKGROUND - 1 if job.priority == BACKGROUND and now - job.created_at > STARVED_S else job.priority


@dataclass(slots=True)
class _Server:
    """A server as the rehearsal moves it on."""

    line: ServerLine
    free_s: float
    loaded: Sequence[str]
    ahead: int
    doing: set[str]  # kinds of what it has
    sent: list[Sent]
    known: bool = True  # whether all before is of known length

    def takes_s(self, job: OpenJob) -> float:
        takes_s = self.line.takes_s(job, self.loaded)
        return UNKNOWN_S if takes_s is None else takes_s


Place: TypeAlias = tuple[int, int, int]
"""Priority, turn, arrival."""


class _Lines:
    """The rehearsal of a home's line: who is free first takes the next job that it ends first.

    Jobs that differ in nothing that matters here stand in one column, so that a thousand of them are placed in a few milliseconds.
    """

    def __init__(self, jobs: Sequence[OpenJob], servers: Sequence[ServerLine], now: float, also: str | None = None) -> None:
        self._columns: dict[tuple[Any, ...], deque[tuple[Place, OpenJob]]] = {}
        for place, job in _placed(jobs, now):
            self._columns.setdefault((place[0], job.loads, job.kind, job.servers), deque()).append((place, job))
        told = {line.url: line for line in servers}
        urls = dict.fromkeys([*([also] if also else []), *(url for column in self._columns for url in column[3])])
        flying = [job for job in jobs if job.status != QUEUED and job.status in (JobStatus.SUBMITTED, JobStatus.RUNNING)]
        self._servers = [_server(url, told.get(url), [job for job in flying if job.server_url == url]) for url in urls]
        self._nobody = not any(server.line.usable for server in self._servers)

    def turns(self) -> Iterator[Turn]:
        """Give every waiting job to a server, one after the other."""
        free = [(server.free_s, number) for number, server in enumerate(self._servers) if server.line.usable or self._nobody]
        heapq.heapify(free)
        while free:
            free_s, number = heapq.heappop(free)
            first = self._choice(self._servers[number])
            if first is None:
                continue
            best = self._ends_first(first[1], number)
            if best != number:  # it waits for what it would end first itself
                heapq.heappush(free, (free_s, number))
                first = self._choice(self._servers[best])
                assert first is not None
            yield self._give(first[2], self._servers[best])
            if best == number:
                heapq.heappush(free, (self._servers[number].free_s, number))
            else:
                free = sorted((self._servers[other].free_s, other) for _, other in free)

    def _give(self, key: tuple[Any, ...], server: _Server) -> Turn:
        _, job = self._columns[key].popleft()
        if not self._columns[key]:
            del self._columns[key]
        takes_s = server.line.takes_s(job, server.loaded)
        turn = Turn(job, server.line.url, server.ahead, server.free_s if server.known else None, takes_s)
        server.known = server.known and takes_s is not None
        server.sent.append(Sent(job.seq, job.priority, server.takes_s(job)))
        server.free_s += server.takes_s(job)
        server.loaded, server.doing = job.loads or server.loaded, {job.kind}
        server.ahead += 1
        return turn

    def _choice(self, server: _Server) -> _First | None:
        """The job this server would take next: of those whose turn it is the best by what it has loaded."""
        mine = sorted((column[0], key) for key, column in self._columns.items() if server.line.url in key[3])
        pool = [(place, job, key) for (place, job), key in mine if place[0] == mine[0][0][0][0]]
        return self._together(server, self._leave_room(server, pool)) if pool else None

    def _together(self, server: _Server, pool: Sequence[_First]) -> _First:
        """Who shares most of what is loaded; the first in line where that would hold back the one who came first for too long."""
        loaded = set(server.loaded)
        best = max(pool, key=lambda first: len(loaded.intersection(first[1].loads)))
        if best[1].loads == pool[0][1].loads:
            return pool[0]
        oldest = min((job for _, job, _ in pool), key=lambda job: job.seq)
        still = min(column[0][1].seq for column in self._columns.values())
        server.sent = [sent for sent in server.sent if sent.seq > still]
        held_s = sum(sent.took_s for sent in server.sent if sent.seq > oldest.seq and sent.priority == oldest.priority)
        return best if held_s + server.takes_s(best[1]) <= server.line.patience_s else pool[0]

    def _leave_room(self, server: _Server, pool: list[_First]) -> list[_First]:
        """Pictures alone where all other servers that could make them are at clips."""
        pictures = [first for first in pool if first[1].kind != "video"]
        if not pictures or len(pictures) == len(pool):
            return pool
        others = [other for other in self._servers if other is not server and any(other.line.url in job.servers for _, job, _ in pictures)]
        return pictures if others and all("video" in other.doing for other in others) else pool

    def _ends_first(self, job: OpenJob, mine: int) -> int:
        """The server that ends this job first; `mine` where another is no better."""
        able = [number for number, server in enumerate(self._servers) if server.line.usable and server.line.url in job.servers] or [mine]
        return min(able, key=lambda number: (self._servers[number].free_s + self._servers[number].takes_s(job), number != mine))


_First: TypeAlias = tuple[Place, OpenJob, tuple[Any, ...]]
"""The first of a column, with its key."""


def _server(url: str, told: ServerLine | None, has: Sequence[OpenJob]) -> _Server:
    line = told or ServerLine(url, UNKNOWN_S * len(has))
    return _Server(line, line.busy_s, line.loaded, len(has), {job.kind for job in has}, list(line.sent))


def _placed(jobs: Sequence[OpenJob], now: float) -> list[tuple[Place, OpenJob]]:
    turns: dict[tuple[str, int], int] = Counter((job.person, _priority(job, now)) for job in jobs if job.status in IN_FLIGHT)
    found = []
    for job in sorted(_waiting(jobs), key=attrgetter("seq")):
        whose = (job.person, _priority(job, now))
        turn = turns.get(whose, 0)
        turns[whose] = turn + 1
        found.append(((whose[1], turn, job.seq), job))
    found.sort(key=itemgetter(0))
    return found
