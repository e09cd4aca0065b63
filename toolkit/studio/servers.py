"""Which servers a studio uses, how they were found, and what the ledger and the live board know of them.

The order is design.md's: the argument, COMFYUI_URL, what `toolkit connect` remembered, a ComfyUI on loopback, the built-in engine. A named
server that does not answer is an error, never the engine.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from toolkit.errors import ServerError, ToolkitError
from toolkit.graph import NodeCatalog
from toolkit.ledger import Ledger, LiveBoard
from toolkit.pipelines.choosing import can_make, names_of
from toolkit.pipelines.families import LOADERS
from toolkit.processes import ensure_engine
from toolkit.settings import ENGINE, FoundBy, ServerAddress, Settings, parse_servers, remembered_servers

if TYPE_CHECKING:
    from toolkit.client import ComfyClient, ServerLook

T = TypeVar("T")
DISCOVERED = ("http://127.0.0.1:8188", "http://127.0.0.1:8000")
LOOK_TIMEOUT_S = 30.0  # as in client.py: a server whose answers take 20 s is slow, not gone


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server as the home knows it; `can_make` lists the families whose nodes and files are all there."""

    url: str
    found_by: FoundBy
    state: str
    comfyui_version: str | None
    device: str | None
    can_make: Sequence[str]
    simulated: bool
    running: int = 0
    pending: int = 0
    sentence: str | None = None

    @property
    def described(self) -> str:
        """Which server it is, how it was found and what it can make, in a sentence."""
        words = {"argument": "asked for", "COMFYUI_URL": "named by COMFYUI_URL", "settings": "remembered", "discovered": "found there"}
        how = words.get(self.found_by, "nothing else found")
        if self.simulated:
            return f"Built-in engine ({how}): draws stand-ins; `toolkit connect http://127.0.0.1:8188` for real pictures"
        if self.state == "unreachable":
            return f"ComfyUI at {self.url} ({how}) does not answer"
        making = ", ".join(self.can_make) or "nothing yet: it has no models"
        return f"ComfyUI {self.comfyui_version} at {self.url} ({how}), {self.device}. Can make: {making}"


class Servers:
    """The servers of one studio, resolved when first needed."""

    def __init__(self, settings: Settings, asked: str | Sequence[str] | None, ledger: Ledger, board: LiveBoard) -> None:
        self._settings = settings
        self._asked = parse_servers(asked if isinstance(asked, str) else ",".join(asked)) if asked else ()
        self._ledger, self._board = ledger, board
        self._found: tuple[tuple[ServerAddress, ...], FoundBy] | None = None
        self._catalogs: dict[str, tuple[str | None, NodeCatalog]] = {}

    def found(self) -> tuple[tuple[ServerAddress, ...], FoundBy]:
        """The addresses and how they were found; looks at loopback for 0.3 s when nothing is named."""
        if self._found is None:
            self._found = self._find(self._settings.home)
        return self._found

    def _find(self, home: Path) -> tuple[tuple[ServerAddress, ...], FoundBy]:
        if self._asked:
            return self._asked, "argument"
        if self._settings.servers:
            return self._settings.servers, "COMFYUI_URL"
        remembered = remembered_servers(home)
        if remembered:
            return remembered, "settings"
        from toolkit.client import discover  # aiohttp takes 0.3 s to import; jobs and sql ask nobody

        url = discover(DISCOVERED)
        if url is not None:
            return (ServerAddress.parse(url),), "discovered"
        return (ServerAddress(ENGINE),), "built-in"

    def without_looking(self) -> tuple[ServerAddress, ...]:
        """The servers that are named, else every one that could be found; asks nobody."""
        named = self._asked or self._settings.servers or remembered_servers(self._settings.home)
        return named or (ServerAddress(ENGINE), *(ServerAddress.parse(url) for url in DISCOVERED))

    @property
    def addresses(self) -> tuple[ServerAddress, ...]:
        """The servers' addresses, credentials included."""
        return self.found()[0]

    def catalog(self, address: ServerAddress) -> NodeCatalog | None:
        """What the server can run, as the ledger last saw it; parsed once."""
        now = self._ledger.catalog_hash(address.url)
        if now is None:
            return None
        held = self._catalogs.get(address.url)
        if held is None or held[0] != now:
            held = (now, self._ledger.catalog(address.url) or NodeCatalog({}))
            self._catalogs[address.url] = held
        return held[1]

    def known(self) -> dict[str, NodeCatalog]:
        """What each server could run when it was last looked at; asks nobody."""
        return {address.url: catalog for address in self.addresses if (catalog := self.catalog(address)) is not None}

    def catalogs(self) -> dict[str, NodeCatalog]:
        """What each server can run, by its url; one that nobody has asked yet is looked at.

        Raises:
            ServerUnreachable: none of the named ones answers.
        """
        found: dict[str, NodeCatalog] = {}
        for address in self.usable():
            if self.catalog(address) is None:
                self.look(address)
            catalog = self.catalog(address)
            found |= {address.url: catalog} if catalog is not None else {}
        return found

    def usable(self) -> list[ServerAddress]:
        """The servers to accept for: fed ones as they are, others after a look.

        Raises:
            ServerUnreachable: none of the named ones answers; nothing is accepted then.
        """
        usable, failures = [], list[ToolkitError]()
        for address in self.addresses:
            live = self._board.server(address.url)
            if address.is_engine or (live is not None and live.is_alive()):
                usable.append(address)
                continue
            try:
                self.look(address)
                usable.append(address)
            except ToolkitError as error:
                failures.append(error)
        if not usable:
            raise failures[0]
        return usable

    def look(self, address: ServerAddress) -> ServerLook:
        """Ask the server itself and remember what it says.

        Raises:
            ServerUnreachable: it does not answer.
        """
        from toolkit.client import ComfyClient

        look = self._ask(ComfyClient.look, address)
        self._ledger.remember_server(address.url, look.facts, look.instance, look.catalog)
        return look

    def free(self, address: ServerAddress) -> None:
        """Let the server unload its models, once it is between two prompts.

        Raises:
            ServerUnreachable: it does not answer.
        """
        from toolkit.client import ComfyClient

        self._ask(ComfyClient.free, address)

    def _ask(self, what: Callable[[ComfyClient], Awaitable[T]], address: ServerAddress) -> T:
        from toolkit.client import ask_once

        url = ensure_engine(self._settings.home) if address.is_engine else None
        return ask_once(what, address, url, self._settings.headers, LOOK_TIMEOUT_S)

    def status(self) -> list[ServerStatus]:
        """What is known of each server; one that no feeder watches is looked at."""
        return [self._status_of(address) for address in self.addresses]

    def _status_of(self, address: ServerAddress) -> ServerStatus:
        live = self._board.server(address.url)
        alive = live is not None and live.is_alive(time.time())
        state, sentence = (live.state, live.sentence) if live is not None and alive else ("ready", None)
        known = self._ledger.server(address.url)
        if not alive:
            try:
                self.look(address)
                known = self._ledger.server(address.url)
            except ServerError as error:
                state, sentence = "unreachable", error.message
        facts: dict[str, Any] = dict(known.facts) if known else {}
        return ServerStatus(
            address.url, self.found()[1], state, facts.get("comfyui_version"), facts.get("device"), self.can_make(address),
            address.is_engine or bool(facts.get("simulated")), live.running if live and alive else 0, live.pending if live and alive else 0, sentence,
        )  # fmt: skip

    def can_make(self, address: ServerAddress) -> list[str]:
        """The families whose nodes and files the server has."""
        catalog = self.catalog(address)
        return can_make(catalog) if catalog is not None else []

    def models(self, address: ServerAddress) -> dict[str, list[str]]:
        """The files of the server by folder, for the loaders the pipelines use."""
        catalog = self.catalog(address)
        return {folder: list(names_of(folder, catalog)) for folder in LOADERS} if catalog is not None else {}
