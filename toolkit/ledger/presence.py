"""Files that were moved or deleted outside the toolkit, found out by looking at the folders that changed since the last look.

Owns the comparison of the ledger's names with the disk. Writes nothing: what is to be marked is the ledger's. A folder whose time of change is
the one that was noted is not read again, so that a look at a thousand folders costs some milliseconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.ledger.database import Database

LOOKED = "looked "  # meta: the folder's time of change when it was last looked at, in nanoseconds; 0 for one that was gone
SETTLED_S = 1.0  # a folder changed less long ago may change again within one tick of its clock: it is looked at again next time


@dataclass(frozen=True, slots=True)
class Presence:
    """What a look found: files to be marked as (job id, number, disk), and folders to be noted by their meta key."""

    marks: list[tuple[str, int, str]] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)


def look(database: Database, projects: Path) -> Presence:
    """Compare the files of every folder that changed; trashed ones are not our business here."""
    noted = {row["key"]: row["value"] for row in database.rows("SELECT key, value FROM meta WHERE key >= ? AND key < ?", LOOKED, LOOKED + "\U0010ffff")}
    found = Presence()
    for folder in _folders(database):
        changed = _changed_at(projects / folder)
        if changed is None or str(changed) == noted.get(LOOKED + folder):
            continue
        recorded = database.rows("SELECT job_id, number, name, disk FROM files WHERE name > ? AND name < ?", f"{folder}/", f"{folder}0")
        names = _listed(projects / folder)  # after what is recorded: a file has its name before its row
        for row in recorded:
            disk = "present" if row["name"].rpartition("/")[2] in names else "missing"
            if row["disk"] not in (disk, "trashed"):
                found.marks.append((row["job_id"], row["number"], disk))
        if time.time() - changed / 1e9 > SETTLED_S:
            found.folders[LOOKED + folder] = str(changed)
    return found


def _folders(database: Database) -> Iterator[str]:
    """The folders that hold files, by one step in the index of names for each: `0` follows `/`."""
    last = ""
    while found := database.rows("SELECT name FROM files WHERE name >= ? ORDER BY name LIMIT 1", last):
        folder = found[0]["name"].rpartition("/")[0]
        yield folder
        last = f"{folder}0"


def _changed_at(folder: Path) -> int | None:
    """When a folder changed, in nanoseconds: 0 for one that is gone, None for one that cannot be read: a disk that is away took no file away."""
    try:
        return os.stat(folder).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError:
        return None


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return set()
