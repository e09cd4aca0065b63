"""How requests become jobs: what each becomes on the servers that can run it, then all of them in one transaction, then their feeders.

Owns that nothing is written that no server could run, and that nobody is fed before the jobs are durable. Knows no face.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from toolkit.crashpoints import reached
from toolkit.errors import ToolkitError
from toolkit.guests import as_ruled
from toolkit.inputs import WildcardFolder
from toolkit.jobs import Job, Origin, Priority
from toolkit.ledger import Key, Ledger, NewJob
from toolkit.ledger.people import Person
from toolkit.pipelines import build
from toolkit.pipelines.built import Built
from toolkit.requests import Request
from toolkit.settings import ServerAddress
from toolkit.studio.orders import Orders
from toolkit.studio.servers import Servers
from toolkit.studio.watcher import Watcher
from toolkit.times import Cost


class Accepting:
    """The part of a Studio that takes requests in."""

    _orders: Orders
    _ledger: Ledger
    _servers: Servers
    _watcher: Watcher
    _wildcards: WildcardFolder

    def _accept(
        self, requests: Iterable[Request], *, priority: Priority = "normal", reuse: bool | None = None, origin: Origin = "notebook", person: str = "owner",
        group: tuple[str | None, str | None] = (None, None), key: Key | None = None,
    ) -> list[Job]:  # fmt: skip
        usable = self._usable()
        about: dict[str, Any] = {"priority": priority, "origin": origin, "person": person, "reuse": reuse, "key": key}
        about |= {"group_id": group[0], "group_name": group[1]}
        guest = self._ledger.people.guest(person)
        return self._accepted([replace(self._new(request, usable, guest)[0], **about) for request in requests])

    def _usable(self) -> Sequence[ServerAddress]:
        """The servers that new work may go to.

        Raises:
            RequestInvalid: the studio is closed. HomeUnusable: the disk is full. ServerUnreachable: no named server answers.
        """
        self._watcher.require_open()
        self._ledger.require_room()
        return self._servers.usable()

    def _accepted(self, new: Sequence[NewJob]) -> list[Job]:
        with self._accepting(new):
            return self._ledger.accept(*new)

    @contextlib.contextmanager
    def _accepting(self, new: Sequence[NewJob]) -> Iterator[None]:
        """A block that writes new jobs into the ledger, and sees to their feeders then."""
        reached("request parsed")
        yield
        reached("row committed")
        self._feed({url for job in new for url in job.servers})

    def _new(self, request: Request, usable: Sequence[ServerAddress], guest: Person | None = None) -> tuple[NewJob, Mapping[str, Any]]:
        """A request on its way into the ledger, and the graph it becomes, where that is known before a server was asked."""
        request = self._orders.with_sizes(request)
        if guest is not None:
            self._servers.catalogs()  # a size cannot be judged, nor a word left out, before a server was looked at
            request = as_ruled(request, guest.quota, self._ledger.people.rules(), lambda reading: self._able(reading, usable)[1].recipe)
        able, first = self._able(request, usable)
        return NewJob(request, able, warnings=first.warnings, **cost_of(first.graph)), first.graph

    def _able(self, request: Request, usable: Sequence[ServerAddress]) -> tuple[Sequence[str], Built]:
        """The servers that can run a request, and what it becomes on the first of them."""
        able, failures, first = [], list[ToolkitError](), Built({}, dict)
        for address in usable:
            catalog = self._servers.catalog(address)
            try:
                built = build(request, catalog, wildcards=self._wildcards) if catalog is not None else first
                first = first if first.graph else built
                able.append(address.url)
            except ToolkitError as error:
                failures.append(error)
        if not able:
            raise failures[0]
        return able, first

    def _feed(self, urls: Iterable[str]) -> None:
        wanted = set(urls)
        self._watcher.feed([address for address in self._servers.addresses if address.url in wanted])


def cost_of(graph: Mapping[str, Any]) -> dict[str, Any]:
    """What ordering needs of a graph; nothing where no catalog was known to build it with."""
    return Cost.of(graph)._asdict() if graph else {}
