"""What the environment and the home say before any work: where the home is, which servers are named, ports and the token.

Owns the one frozen `Settings`, the normal form of a server's address and the small file the home remembers servers in. Knows nothing
of jobs or sockets. The environment arrives as an argument, so a test can hand in another one.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import platformdirs

from toolkit.crashpoints import reached
from toolkit.errors import HomeUnusable, RequestInvalid

ENGINE = "engine"
ADDRESS_HINT = "Write http://host:8188 or https://host."
FoundBy = Literal["argument", "COMFYUI_URL", "settings", "discovered", "built-in"]


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server in normal form: `url` is safe to show and to store, credentials stay beside it."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def is_engine(self) -> bool:
        """The built-in engine, whatever its port is today."""
        return self.url == ENGINE

    @property
    def secret_url(self) -> str:
        """The address with its credentials, to hand to a child process and to nobody else."""
        if self.user is None:
            return self.url
        scheme, rest = self.url.split("://", 1)
        return f"{scheme}://{quote(self.user, safe='')}:{quote(self.password or '', safe='')}@{rest}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may show: the password as it was written, in an address, and as it travels."""
        if self.password is None:
            return ()
        return self.password, quote(self.password, safe=""), b64encode(f"{self.user}:{self.password}".encode()).decode()

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Normalise `localhost:8188`, `http://h:8188/comfy/`, `https://user:pw@h`, `[::1]:8188` or `engine`.

        Raises:
            RequestInvalid: for another scheme, no host, or a port that is none.
        """
        text = text.strip()
        if text.lower() == ENGINE:
            return cls(ENGINE)
        shown = re.sub(r"^(\w+://)?.*@", r"\1", text, flags=re.DOTALL)
        refused = f"'{shown}' is not the address of a ComfyUI server"
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            host, port = parts.hostname, parts.port
            host = host.encode("idna").decode("ascii") if host and not host.isascii() else host
        except ValueError as error:  # its text quotes what it could not read, which may be part of a password
            raise RequestInvalid(f"{refused}." if "@" in text else f"{refused}: {error}.", hint=ADDRESS_HINT) from error
        if parts.scheme not in ("http", "https") or re.search(r"[\s\\\x00-\x20\x7f]", f"{text}{host}"):
            raise RequestInvalid(f"{refused}.", hint=ADDRESS_HINT)
        if not host:
            raise RequestInvalid(f"'{shown}' names no host.", hint="Write http://host:8188.")
        host = f"[{host}]" if ":" in host else host
        place = host if port in (None, {"http": 80, "https": 443}[parts.scheme]) else f"{host}:{port}"
        url = f"{parts.scheme}://{place}{parts.path.rstrip('/')}"
        return cls(url, unquote(parts.username) if parts.username else None, unquote(parts.password) if parts.password else None)


def parse_servers(text: str) -> tuple[ServerAddress, ...]:
    """The addresses of a comma-separated list, doubles left out, in order."""
    found = {address.url: address for part in text.split(",") if part.strip() for address in [ServerAddress.parse(part)]}
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the environment decides; one value, read once."""

    home: Path
    servers: tuple[ServerAddress, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    host: str = "127.0.0.1"
    port: int = 7860
    feed_port: int = 8329
    token: str | None = field(default=None, repr=False)
    public_url: str | None = None  # https://draw.example.org: where others see the page, through a proxy on this machine
    feeder_idle_s: float = 60.0
    patience_s: float = 120.0  # how much later than by arrival a job may start because others share what a server has loaded

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no line of a log may show."""
        given = [secret for address in self.servers for secret in address.secrets]
        return (*([self.token] if self.token else []), *header_secrets(self.headers), *given)

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None, *, folder: Path | None = None, home: str | os.PathLike[str] | None = None) -> Settings:
        """The settings of this environment and working folder; `home` overrides TOOLKIT_HOME.

        Raises:
            RequestInvalid: naming the variable that cannot be read.
        """
        environ = os.environ if environ is None else environ
        named_home = home or environ.get("TOOLKIT_HOME")
        return cls(
            home=Path(named_home).expanduser().absolute() if named_home else default_home(folder or Path.cwd()),
            servers=parse_servers(environ.get("COMFYUI_URL", "")),
            headers=_headers(environ.get("COMFYUI_HEADERS", "")),
            host=environ.get("TOOLKIT_HOST") or "127.0.0.1",
            port=_port(environ, "TOOLKIT_PORT", 7860),
            feed_port=_port(environ, "TOOLKIT_FEED_PORT", 8329),
            token=environ.get("TOOLKIT_TOKEN") or None,
            public_url=public_url(environ.get("TOOLKIT_PUBLIC_URL", "")),
            feeder_idle_s=_seconds(environ, "TOOLKIT_FEEDER_IDLE_S", 60.0),
            patience_s=_seconds(environ, "TOOLKIT_PATIENCE_S", 120.0),
        )


def public_url(text: str) -> str | None:
    """The origin of an address that others use, such as `https://draw.example.org`; None for no text.

    Raises:
        RequestInvalid: it is none, or has a path: the page is at the root of a name of its own.
    """
    if not text:
        return None
    try:
        address = ServerAddress.parse(text if "://" in text else f"https://{text}")
    except RequestInvalid as error:
        raise RequestInvalid(f"'{text[:100]}' is not an address of a page.", hint="Write https://draw.example.org.", field="public") from error
    if address.user is not None or address.url.count("/") != 2:
        raise RequestInvalid(f"{address.url} has more than a name.", hint="Give the page a name of its own: https://draw.example.org.", field="public")
    return address.url


def header_secrets(headers: Mapping[str, str]) -> list[str]:
    """What is secret in headers: their values, and what follows `Bearer` in one."""
    return [part for value in headers.values() for part in (value, *value.split()[-1:]) if part.strip()]


def default_home(folder: Path) -> Path:
    """`data/` of the checkout `folder` lies in, so that notebooks and page share it; elsewhere the user's data folder."""
    for place in (folder, *folder.parents):
        try:
            project = tomllib.loads((place / "pyproject.toml").read_text(encoding="utf-8")).get("project")
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            continue
        if isinstance(project, dict) and project.get("name") == "anime-toolkit":
            return place / "data"
    return platformdirs.user_data_path("anime-toolkit", appauthor=False)


def remembered_servers(home: Path) -> tuple[ServerAddress, ...]:
    """What `toolkit connect` wrote into this home; nothing when it never ran."""
    try:
        stored = json.loads((home / "settings.json").read_text(encoding="utf-8"))
        return tuple(ServerAddress.parse(text) for text in stored.get("servers", []))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise HomeUnusable(f"{home / 'settings.json'} cannot be read: {error}.", path=str(home), hint="Run `toolkit connect URL` again.") from error


def remember_servers(home: Path, servers: tuple[ServerAddress, ...]) -> None:
    """Write the servers of this home, readable by its owner only; the old file or the new one, never half.

    Raises:
        HomeUnusable: when the folder cannot be written.
    """
    path = home / "settings.json"
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        home.mkdir(parents=True, exist_ok=True)
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump({"servers": [server.secret_url for server in servers]}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        reached("settings written")
        os.replace(part, path)
    except OSError as error:
        raise HomeUnusable(f"{home} cannot be written: {error.strerror}.", path=str(home), hint="Set TOOLKIT_HOME to a folder of yours.") from error


def _headers(text: str) -> dict[str, str]:
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise RequestInvalid(f"COMFYUI_HEADERS is not JSON: {error}.", field="COMFYUI_HEADERS") from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise RequestInvalid('COMFYUI_HEADERS must look like {"X-Key": "value"}.', field="COMFYUI_HEADERS")
    return found


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or int(text) > 65535:
        raise RequestInvalid(f"{name} is '{text}', which is no port (0 to 65535).", field=name)
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name) or str(default)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise RequestInvalid(f"{name} is '{text}', which is no time in seconds.", field=name)
    return seconds
