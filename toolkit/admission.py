"""What may come in from outside: which hosts, origins and tokens, and how a body is read.

Owns the rules that REST, page and feed share, so that none of them is stricter than another. Knows no job and does no I/O: headers and
bytes come in, a `Refused` goes out. A page on another site can reach loopback through the user's browser, by its own name (DNS rebinding)
or across origins; both are told apart by the Host and Origin headers, which browsers do not let a page forge.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from toolkit.errors import ToolkitError
from toolkit.settings import Settings

BODY_LIMIT = 2_000_000  # bytes; the longest prompt is 10,000 characters, the rest is room for workflows
NESTING = 100  # levels of JSON
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class Refused(ToolkitError):
    """Something that does not come in; `status` is the HTTP answer, `code` its word."""

    def __init__(
        self, status: int, code: str, message: str, *, hint: str | None = None, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint, field=field)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may speak to a home's page, REST and feed."""

    host: str
    token: str | None = field(default=None, repr=False)
    public: str | None = None  # the origin by which others see us through a proxy

    @classmethod
    def of(cls, settings: Settings) -> Gate:
        """The gate these settings ask for."""
        return cls(settings.host.strip("[]").lower(), settings.token, settings.public_url)

    def check_host(self, header: str | None) -> None:
        """Let in loopback names and the configured host, whatever the port.

        Raises:
            Refused: 403 for any other name, which is how a rebound DNS name shows.
        """
        name = _place(f"http://{header}")[0] if header else None
        if name is None or not self._knows(name):
            hint = f"Open it as http://{self.host}, or set TOOLKIT_HOST to the name you use."
            raise Refused(403, "host_refused", f"'{(header or '')[:100]}' is not a name of this toolkit.", hint=hint)

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Let in requests of this very origin and those of programs, which name none.

        Raises:
            Refused: 403 for a page of another origin.
        """
        if origin is None:
            return
        scheme = urlsplit(origin).scheme
        if self.public and _place(f"http://{host}")[0] == urlsplit(self.public).hostname:
            same = self._is_public(origin)
        else:
            same = scheme in ("http", "https") and _place(origin) == _place(f"{scheme}://{host}")
        if not same:
            raise _foreign(origin)

    def check_page(self, origin: str | None, page_port: int) -> None:
        """Let in the page's own script on another port (the feed's), and programs.

        Raises:
            Refused: 403 for any other origin.
        """
        if origin is None or self._is_public(origin):
            return
        name, port = _place(origin)
        if name is None or not self._knows(name) or port != page_port:
            raise _foreign(origin)

    def check_token(self, authorization: str | None) -> None:
        """Ask for `Authorization: Bearer <token>` where a token is set; compared in constant time.

        Raises:
            Refused: 401 without it or with another one.
        """
        if self.token is None:
            return
        if not self.is_token(bearer_of(authorization) or ""):
            hint = "Send `Authorization: Bearer <token>`; tokens in addresses are not read."
            raise Refused(401, "token_required", "This toolkit asks for its token.", hint=hint, headers={"WWW-Authenticate": "Bearer"})

    def is_token(self, given: str) -> bool:
        """Whether it is the token; takes as long for a wrong one."""
        return self.token is not None and hmac.compare_digest(_digest(given), _digest(self.token))

    def _is_public(self, origin: str) -> bool:
        return self.public is not None and (urlsplit(origin).scheme, _place(origin)) == (urlsplit(self.public).scheme, _place(self.public))

    def _knows(self, name: str) -> bool:
        if name in LOOPBACK_NAMES or name == self.host or (self.public and name == urlsplit(self.public).hostname):
            return True
        # bound to every address: an address in the Host header cannot be a rebound name, and the machine's own name is fine
        return self.host in ("0.0.0.0", "::") and (_is_address(name) or name == socket.gethostname().lower())


def bearer_of(authorization: str | None) -> str | None:
    """The token of an `Authorization: Bearer` header; None where there is none."""
    scheme, _, given = _utf8(authorization or "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _utf8(header: str) -> str:
    """A header as its sender wrote it: starlette reads the bytes as Latin-1, websockets as ASCII with escapes."""
    try:
        return header.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return header.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _place(url: str) -> tuple[str | None, int | None]:
    """Host name in lower case and port of an address; (None, None) for what is none."""
    try:
        parts = urlsplit(url)
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return None, None
        return parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None, None


def _foreign(origin: str) -> Refused:
    hint = "Only this toolkit's own page and programs may call it."
    return Refused(403, "origin_refused", f"A page of '{origin[:100]}' may not call this toolkit.", hint=hint)


def parse_object(raw: bytes | str) -> dict[str, Any]:
    """The one JSON object of a body, read strictly; NaN and infinities pass as floats, since the request names their field.

    Raises:
        Refused: 400 `body_required`, `bad_json` with line and column, `duplicate_key`, `not_an_object`; 413 above `BODY_LIMIT` bytes.
    """
    if len(raw) > BODY_LIMIT:
        raise too_large(len(raw))
    text = _decoded(raw)
    if not text.strip():
        raise Refused(400, "body_required", 'The body is empty: send a JSON object with at least "prompt".')
    try:
        found = json.loads(text, object_pairs_hook=_without_doubles)
    except json.JSONDecodeError as error:
        said = f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        raise Refused(400, "bad_json", said) from error
    except RecursionError as error:
        raise Refused(400, "bad_json", "The body is nested too deeply.") from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise Refused(400, "bad_json", "The body holds a number with too many digits.") from error
    if not isinstance(found, dict):
        raise Refused(400, "not_an_object", f'The body is a JSON {_word(found)}: send an object, such as {{"prompt": "..."}}.')
    _check_nesting(found)
    _check_unicode(text, found)
    return found


def too_large(size: int, limit: int = BODY_LIMIT) -> Refused:
    """The refusal of a body of `size` bytes."""
    return Refused(413, "body_too_large", f"The body has {size} bytes; at most {limit} are read.")


def _decoded(raw: bytes | str) -> str:
    if isinstance(raw, str):
        return raw
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused(400, "bad_json", f"The body is not UTF-8: byte {error.start} cannot be read.") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:  # json keeps the last one, which hides the mistake
            raise Refused(400, "duplicate_key", f"`{_printable(name)}` is given twice.", field=_printable(name))
        found[name] = value
    return found


def _check_nesting(found: dict[str, Any]) -> None:
    """Refuse what is nested deeper than any workflow: later readers recurse, too."""
    level: list[Any] = [found]
    for _ in range(NESTING):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise Refused(400, "bad_json", f"The body is nested too deeply: more than {NESTING} levels.")


def _check_unicode(text: str, found: dict[str, Any]) -> None:
    r"""Refuse halves of surrogate pairs (`"\ud800"`): JSON can write them, UTF-8 and SQLite cannot."""
    if "\\u" not in text:
        return
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused(400, "bad_json", "The body holds half of a surrogate pair, which is no character.") from error


def _printable(name: str) -> str:
    return name[:80].encode("utf-8", "replace").decode()


def _word(value: Any) -> str:
    words = {list: "list", str: "string", bool: "truth value", type(None): "null"}
    return words.get(type(value), "number")
