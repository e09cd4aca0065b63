"""Who calls, and what they may reach: everything in a home without people, by sign-in elsewhere.

Owns the list of what guests may call (all else is the owner's, so that a route somebody adds tomorrow is closed to guests until it is listed here), whose
jobs and files they see, and how often one may try a key. Page, REST and feed ask here, so that none of them is stricter than another. Reads the ledger
on the loop: one look-up by key in a file that is mapped, which never waits for a writer.
"""

from __future__ import annotations

import ipaddress
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from toolkit.admission import Gate, Refused, bearer_of, is_loopback
from toolkit.errors import JobUnknown
from toolkit.guests import OWNER, SOMEONE
from toolkit.ledger import Ledger
from toolkit.ledger.people import SESSION_S, digest_of
from toolkit.settings import Settings

TRIES, TRIES_S = 10, 600.0  # wrong keys from one address, and within which time
ADDRESSES = 10_000  # whose tries are remembered
SESSION_PATH = "/api/anime/session"
SIGN_IN_PATH = "/sign-in"
UPLOAD_PATHS = ("/api/anime/uploads", "/gradio_api/upload")
# method and path of all that a guest may call; the page's part is what the page itself calls
GUESTS_MAY = re.compile(
    r"""(GET|HEAD|DELETE|POST)\ /api/anime/session
    | POST\ /api/anime/(generate/(image|video)|plan|uploads)
    | GET\ /api/anime/(jobs|queue|models|health|stats) | GET\ /api/(docs|openapi\.json)
    | (GET|HEAD|POST)\ /api/anime/jobs/(?P<job>[^/]+)(/cancel|/retry|/files/.+)?
    | (GET|HEAD)\ /(sign-in|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|pwa_icon(/\d+)?|(assets|static|svelte)/.+)?
    | (GET|HEAD)\ /gradio_api/file=(?P<file>(?!https?:).+)
    | GET\ /gradio_api/(info|startup-events|app_id|theme\.css|heartbeat/\w+|queue/data|upload_progress|call/\w+/\w+)
    | POST\ /gradio_api/(queue/join|upload|cancel|reset|call/\w+)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who calls; `key` is the digest of what they came with, gone as soon as they are removed or sign out."""

    person: str = OWNER
    is_owner: bool = True
    key: bytes | None = None

    @property
    def only(self) -> str | None:
        """Whose jobs they see; None: everybody's."""
        return None if self.is_owner else self.person

    def called(self, person: str) -> str:
        """What somebody in the line is called when this visitor looks."""
        return person if self.is_owner or person == self.person else SOMEONE


THE_OWNER = Visitor()
NOBODY = Visitor("", is_owner=False)


class Tries:
    """Wrong keys by address: a network's own part of it, since one machine has 2**64 addresses of IPv6."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._now = clock
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Let through who has not tried too often.

        Raises:
            Refused: 429, with when to try again.
        """
        recent = self._recent(address)
        if len(recent) >= TRIES:
            wait_s = max(1, round(recent[0] + TRIES_S - self._now()))
            raise Refused(429, "too_many_tries", "Too many wrong keys from your address.", hint="Wait a little.", headers={"Retry-After": str(wait_s)})

    def wrong(self, address: str) -> None:
        """Count a wrong key."""
        self._wrong[_network(address)] = [*self._recent(address), self._now()]
        self._wrong.move_to_end(_network(address))
        while len(self._wrong) > ADDRESSES:
            self._wrong.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        return [at for at in self._wrong.get(_network(address), []) if self._now() - at < TRIES_S]


class Visitors:
    """The door of a home."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger, self._people = ledger, ledger.people
        self._gate = Gate.of(settings)
        self._public = settings.public_url
        self._tries = Tries()

    def are_asked(self) -> bool:
        """Whether one must sign in: in public, and where there are people."""
        return self._public is not None or self._people.exist()

    def admit(self, method: str, path: str, *, authorization: str | None, cookie: str | None, address: str) -> Visitor:
        """Who makes this call, if they may.

        Raises:
            Refused: 401 for who is nobody, 403 for what is the owner's, 429 after too many wrong keys. JobUnknown: a job or file of another.
        """
        if not self.are_asked():
            return self._with_token(authorization, address) if path in ("/api", "/metrics") or path.startswith("/api/") else THE_OWNER
        is_open = path in (SIGN_IN_PATH, SESSION_PATH)
        visitor = self.identify(authorization, cookie, address, is_open=is_open)
        if not visitor.is_owner and visitor is not NOBODY:
            self._check_guest(visitor, method, path)
        return visitor

    def identify(self, authorization: str | None, cookie: str | None, address: str, *, is_open: bool = False) -> Visitor:
        """Who comes with this token or cookie; where it `is_open`, `NOBODY` may too.

        Raises:
            Refused: 401, or 429 after too many wrong tokens.
        """
        if not self.are_asked():
            return self._with_token(authorization, address)
        token, session = bearer_of(authorization), self._session(cookie)
        if token is not None:
            self._check_tries(address)
            if self._gate.is_token(token):
                return THE_OWNER
        person = self._people.whose(key := digest_of(token or session or ""), "session" if token is None else "token")
        if person is not None:
            return Visitor(person.name, person.is_owner, key)
        if token is not None:
            self._tries.wrong(address)
        if is_open:
            return NOBODY
        hint = f"Open your link, or {SIGN_IN_PATH}; programs send `Authorization: Bearer <token>`."
        raise Refused(401, "sign_in_required", "Who are you? This page is for invited people.", hint=hint, headers={"WWW-Authenticate": "Bearer"})

    def _with_token(self, authorization: str | None, address: str) -> Visitor:
        """In a home without people whoever has the token, if there is one, is the owner."""
        self._check_tries(address)
        try:
            self._gate.check_token(authorization)
        except Refused:
            if authorization is not None:
                self._tries.wrong(address)
            raise
        return THE_OWNER

    def _check_tries(self, address: str) -> None:
        """Without a proxy, loopback is the owner's own machine: a script of theirs with an old token must not lock out the others."""
        if self._public or not is_loopback(address):
            self._tries.check(address)

    def sign_in(self, code: str, address: str) -> str:
        """The `Set-Cookie` of a new session, for a one-time code.

        Raises:
            Refused: 403 for a code that is unknown, used or too old; 429 after too many.
        """
        self._check_tries(address)
        session = self._people.redeem(code)
        if session is None:
            self._tries.wrong(address)
            raise Refused(403, "code_refused", "This link was used already, or is too old.", hint="Ask whoever sent it for another one.")
        return self._cookie(session, round(SESSION_S))

    def sign_out(self, visitor: Visitor) -> str:
        """End the session; the `Set-Cookie` that takes it out of the browser."""
        if visitor.key is not None:
            self._people.drop(visitor.key)
        return self._cookie("", 0)

    def take_upload(self, visitor: Visitor, length: str | None) -> None:
        """Count what a guest is about to upload, before a byte of it is read.

        Raises:
            Refused: 411 where its length is not said. QuotaReached: it is more than they may bring within an hour.
        """
        if not (length or "").isdecimal():
            raise Refused(411, "length_required", "An upload must say how long it is.", hint="Send a Content-Length.")
        self._people.take_upload(visitor.person, int(length or 0))

    def still(self, visitor: Visitor) -> bool:
        """Whether who came in earlier still may."""
        return visitor.key is None or self._people.holds(visitor.key)

    def _check_guest(self, visitor: Visitor, method: str, path: str) -> None:
        match = GUESTS_MAY.fullmatch(f"{method} {path}")
        if match is None:
            raise Refused(403, "owner_only", "That is for the owner of this page.")
        if match["job"] and not self._ledger.owns(visitor.person, job_id=match["job"]):
            raise JobUnknown(f"There is no job '{match['job'][:40]}'.", hint="Give the whole id of a job of yours.")
        if match["file"]:
            self._check_file(visitor, match["file"])

    def _check_file(self, visitor: Visitor, path: str) -> None:
        """Of the outputs only their own; what lies elsewhere is gradio's to refuse."""
        path, projects = os.path.abspath(path), str(self._ledger.projects)
        inside = os.path.commonpath([os.path.realpath(projects), os.path.realpath(path)]) == os.path.realpath(projects)
        if inside and not self._ledger.owns(visitor.person, file=os.path.relpath(path, projects).replace(os.sep, "/")):
            raise Refused(404, "file_not_found", "There is no such file of yours.")

    @property
    def _cookie_name(self) -> str:
        """`__Host-`: browsers take it from this very host alone, over https."""
        return "__Host-toolkit" if self._is_secure else "toolkit-session"

    @property
    def _is_secure(self) -> bool:
        return (self._public or "").startswith("https:")

    def _cookie(self, value: str, lives_s: int) -> str:
        secure = "; Secure" if self._is_secure else ""
        return f"{self._cookie_name}={value}; Path=/; Max-Age={lives_s}; HttpOnly; SameSite=Strict{secure}"

    def _session(self, cookie: str | None) -> str | None:
        pairs = [part.strip().partition("=") for part in (cookie or "").split(";")]
        return next((value for name, _, value in pairs if name == self._cookie_name), None)


def caller(peer: str, forwarded: str | None, settings: Settings) -> str:
    """The address of who calls: what a proxy on this machine says last, if there is one; anybody could write the rest of it."""
    last = (forwarded or "").rpartition(",")[2].strip()
    return last if last and settings.public_url and is_loopback(peer) else peer


def _network(address: str) -> str:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:60]
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
