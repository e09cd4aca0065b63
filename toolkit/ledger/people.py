"""Who may use a home besides its owner's own programs, what they may have, and the keys they come with.

Owns `people`, `keys`, `uploads` and the owner's rules. Keys are 128 random bits or more and only their SHA-256 is kept: nobody who reads the file can
come in with it, no slow hash is needed, and how long a look-up takes tells nothing of a key, since a guess decides no byte of the digest. Knows no
request from outside: who calls is visitors.py's.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from toolkit.errors import QuotaReached, RequestInvalid
from toolkit.guests import OWNER, SOMEONE, Quota, Rules
from toolkit.jobs import OPEN
from toolkit.ledger import rows
from toolkit.ledger.database import Database
from toolkit.ledger.find import OF_PERSON

Kind = Literal["code", "session", "token"]
DAY_S = 86_400.0
HOUR_S = 3600.0
SESSION_S = 90 * DAY_S
FULL_LINE_S = 30.0  # when to ask again where a line is full: a picture or so later
NAME = re.compile(r"\w[\w .'-]{0,39}")
OPEN_JOBS = f"SELECT count(*) FROM jobs WHERE status IN ({rows.listed(OPEN)})"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may come in; `added_at` is unix seconds."""

    name: str
    is_owner: bool
    quota: Quota
    added_at: float


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


class People:
    """The people of a home."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._now = database, clock

    def exist(self) -> bool:
        """Whether anybody was added; a home without people is its owner's."""
        return bool(self._database.rows("SELECT 1 FROM people LIMIT 1"))

    def all(self) -> list[Person]:
        """Everybody, the owner first."""
        return [_person(row) for row in self._database.rows("SELECT * FROM people ORDER BY is_owner DESC, name")]

    def find(self, name: str) -> Person | None:
        """The person of this name, in any case of letters."""
        found = self._database.rows("SELECT * FROM people WHERE name = ?", name)
        return _person(found[0]) if found else None

    def known(self, name: str) -> Person:
        """The same.

        Raises:
            RequestInvalid: there is none, with those who are there.
        """
        found = self.find(name)
        if found is None:
            names = ", ".join(person.name for person in self.all()) or "nobody yet"
            raise RequestInvalid(f"There is no '{name[:40]}' among the people of this home: {names}.", field="name")
        return found

    def guest(self, name: str) -> Person | None:
        """The guest of this name; the owner, and whom a program merely names, are none."""
        person = self.find(name) if name != OWNER else None
        return person if person is not None and not person.is_owner else None

    def add(self, name: str, *, is_owner: bool = False) -> Person:
        """Let somebody in; who is there already stays as they are.

        Raises:
            RequestInvalid: what cannot be a name.
        """
        if not NAME.fullmatch(name) or (name.lower() in (OWNER, SOMEONE)) != is_owner:
            raise RequestInvalid(f"'{name[:60]}' cannot be a guest's name: use up to 40 letters, digits, spaces, '.', '-' or '_'.", field="name")
        with self._database.transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO people VALUES (?, ?, '{}', ?)", (name, is_owner, self._now()))
        return self.known(name)

    def remove(self, name: str) -> Person:
        """Let somebody in no more, at once: their keys go too, their jobs and files stay."""
        person = self.known(name)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM people WHERE name = ?", (person.name,))
        return person

    def set_quota(self, name: str, quota: Quota) -> None:
        """Say what a guest may have."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE people SET quota = ? WHERE name = ?", (quota.model_dump_json(), name))

    def used(self, name: str) -> tuple[int, int]:
        """How many jobs somebody asked for within the last hour, and how many are open."""
        asked = self._database.rows(f"SELECT count(*) FROM jobs WHERE {OF_PERSON} AND created_at > ?", name, self._now() - HOUR_S)
        return asked[0][0], self._database.rows(f"{OPEN_JOBS} AND person = ?", name)[0][0]

    # ---- what holds for all of them -----------------------------------------------------------------------------------

    def rules(self) -> Rules:
        """The owner's rules for guests."""
        return Rules.model_validate_json(self._told("rules") or "{}")

    def set_rules(self, rules: Rules) -> None:
        """Say what holds for all guests."""
        self._tell("rules", rules.model_dump_json())

    def public_url(self) -> str | None:
        """Where the page was last served for others."""
        return self._told("public_url")

    def set_public_url(self, url: str) -> None:
        """Note where the page is served, for the links."""
        self._tell("public_url", url)

    def _told(self, key: str) -> str | None:
        found = self._database.rows("SELECT value FROM meta WHERE key = ?", key)
        return found[0]["value"] if found else None

    def _tell(self, key: str, value: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # ---- keys ---------------------------------------------------------------------------------------------------------

    def give(self, name: str, kind: Kind, lives_s: float | None = None) -> str:
        """A new key of somebody; it is not kept, so nobody can show it again."""
        with self._database.transaction() as connection:
            return self._give(connection, name, kind, lives_s)

    def redeem(self, code: str) -> str | None:
        """A session for a one-time code, which is used up by it; None for one that is unknown, used or too old."""
        with self._database.transaction() as connection:
            query = "DELETE FROM keys WHERE digest = ? AND kind = 'code' AND expires_at > ? RETURNING person"
            found = connection.execute(query, (digest_of(code), self._now())).fetchall()
            return self._give(connection, found[0]["person"], "session", SESSION_S) if found else None

    def whose(self, digest: bytes, kind: Kind) -> Person | None:
        """Who comes with this key, if it still holds."""
        query = "SELECT people.* FROM keys JOIN people ON people.name = keys.person WHERE digest = ? AND kind = ? AND coalesce(expires_at > ?, 1)"
        found = self._database.rows(query, digest, kind, self._now())
        return _person(found[0]) if found else None

    def holds(self, digest: bytes) -> bool:
        """Whether a key still lets in."""
        return bool(self._database.rows("SELECT 1 FROM keys WHERE digest = ? AND coalesce(expires_at > ?, 1)", digest, self._now()))

    def drop(self, digest: bytes) -> None:
        """End a session."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM keys WHERE digest = ? AND kind = 'session'", (digest,))

    def _give(self, connection: sqlite3.Connection, name: str, kind: Kind, lives_s: float | None) -> str:
        key, now = secrets.token_urlsafe(16 if kind == "code" else 32), self._now()
        connection.execute("DELETE FROM keys WHERE expires_at < ?", (now,))
        ends = None if lives_s is None else now + lives_s
        connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?)", (digest_of(key), name, kind, now, ends))
        return key

    # ---- quotas -------------------------------------------------------------------------------------------------------

    def admit(self, connection: sqlite3.Connection, name: str) -> None:
        """See that somebody may have one more job, inside the transaction that accepts it; who is no guest may.

        Raises:
            QuotaReached: saying which limit and when to ask again.
        """
        found = None if name == OWNER else connection.execute("SELECT * FROM people WHERE name = ? AND NOT is_owner", (name,)).fetchone()
        if found is None:
            return
        quota, since = _person(found).quota, self._now() - HOUR_S
        (open_jobs,) = connection.execute(f"{OPEN_JOBS} AND person = ?", (name,)).fetchone()
        if open_jobs >= quota.in_line:
            raise QuotaReached(f"You have {open_jobs} jobs in line, as many as you may.", retry_after_s=FULL_LINE_S, hint="Wait for one, or cancel one.")
        (guests,) = connection.execute(f"{OPEN_JOBS} AND person IN (SELECT name FROM people WHERE NOT is_owner)").fetchone()
        if guests >= self.rules().in_line:
            raise QuotaReached("The line of all guests is full.", retry_after_s=FULL_LINE_S, hint="Try again in a moment.")
        asked = connection.execute(f"SELECT count(*), min(created_at) FROM jobs WHERE {OF_PERSON} AND created_at > ?", (name, since)).fetchone()
        if asked[0] >= quota.jobs_per_hour:
            raise QuotaReached(f"You asked for {asked[0]} jobs within an hour, as many as you may.", retry_after_s=_after(asked[1], since))
        query = f"""SELECT coalesce(sum(run_s), 0), min(created_at) FROM jobs JOIN attempts ON job_id = id WHERE {OF_PERSON} AND created_at > ?"""
        spent = connection.execute(query, (name, since)).fetchone()
        if spent[0] > quota.gpu_s_per_hour:
            said = f"Your jobs took {spent[0]:.0f} s of the server within an hour, which is all you may have."
            raise QuotaReached(said, retry_after_s=_after(spent[1], since))

    def take_upload(self, name: str, size_bytes: int) -> None:
        """Count an upload of a guest before it is read.

        Raises:
            QuotaReached: it would be more than they may bring within an hour.
        """
        limit = self.known(name).quota.upload_mb_per_hour
        with self._database.transaction() as connection:
            since = self._now() - HOUR_S
            connection.execute("DELETE FROM uploads WHERE at <= ?", (since,))
            brought, first = connection.execute("SELECT coalesce(sum(size_bytes), 0), min(at) FROM uploads WHERE person = ?", (name,)).fetchone()
            if brought + size_bytes > limit * 1e6:
                raise QuotaReached(f"You may upload {limit} MB within an hour, and have brought {brought / 1e6:.0f}.", retry_after_s=_after(first, since))
            connection.execute("INSERT INTO uploads VALUES (?, ?, ?)", (name, self._now(), size_bytes))


def _after(first: float | None, since: float) -> float:
    """When the first of what was counted is older than an hour."""
    return max(1.0, (first or since) - since)


def _person(row: sqlite3.Row | Any) -> Person:
    return Person(row["name"], bool(row["is_owner"]), Quota.model_validate_json(row["quota"]), row["added_at"])
