"""A whole copy of a home, made while everybody goes on: the ledger by SQLite's own way, then the files it tells of.

Owns what belongs to a backup and in which order: files are on disk before the ledger tells of them, so the ledger goes first, and gets its
name last, so that half a backup never passes for a home. What can be made again (live board, log, engine) is left out.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import HomeUnusable, RequestInvalid
from toolkit.ledger.database import Database

FOLDERS = ("projects", "inputs", "trash")
SAY_EVERY_S = 2.0

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied; `missing` are the files the ledger tells of and the disk no longer has."""

    path: str
    jobs: int
    files: int
    size_bytes: int
    missing: tuple[str, ...] = field(repr=False)

    def __str__(self) -> str:
        said = f"{self.jobs} jobs and {self.files} files ({_size(self.size_bytes)}) are in {self.path}."
        gone = ", ".join(self.missing[:5]) + (", ..." if len(self.missing) > 5 else "")
        return said + (f" {len(self.missing)} were gone already: {gone}." if self.missing else "")


def back_up(database: Database, target: Path, *, files: bool = True, tell: Tell) -> Backup:
    """Copy the home of this ledger to a new folder, which opens as a home.

    Args:
        database: the ledger's.
        target: a folder that does not exist or is empty.
        files: whether to copy pictures, clips and inputs too.
        tell: hears a sentence every 2 s.

    Raises:
        RequestInvalid: the folder is not new. HomeUnusable: it cannot be written; what was begun is removed.
    """
    home, target = database.path.parent, target.expanduser().absolute()
    _refuse_used(home, target)
    try:
        target.mkdir(parents=True, exist_ok=True)
        return _copied(database, home, target, files, Pace(tell))
    except OSError as error:
        shutil.rmtree(target, ignore_errors=True)
        raise HomeUnusable(f"{target} cannot be written: {error.strerror}.", path=str(target), hint="Is there room?") from error
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _refuse_used(home: Path, target: Path) -> None:
    hint = "Name a folder that does not exist yet."
    if any(target.is_relative_to(home / folder) for folder in FOLDERS):
        raise RequestInvalid(f"{target} lies inside what is copied.", field="path", hint=hint)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise RequestInvalid(f"{target} is not empty.", field="path", hint=hint)


def _copied(database: Database, home: Path, target: Path, files: bool, pace: Pace) -> Backup:
    part = target / f"{database.path.name}.part"
    database.copy_to(part, lambda done, of: pace.say(f"ledger: {done} of {of} pages"))
    with suppress(FileNotFoundError):
        shutil.copy2(home / "settings.json", target)
    found = [path for folder in FOLDERS if files for path in _files_of(home / folder)]
    count = size = 0
    for path in found:
        with suppress(FileNotFoundError):  # deleted since: the ledger's own list tells whether it matters
            copy = target / path.relative_to(home)
            copy.parent.mkdir(parents=True, exist_ok=True)
            size += os.stat(shutil.copy2(path, copy)).st_size
            count += 1
        pace.say(f"files: {count} of {len(found)}, {_size(size)}")
    with closing(sqlite3.connect(part)) as ledger:
        (jobs,) = ledger.execute("SELECT count(*) FROM jobs").fetchone()
        names = [name for (name,) in ledger.execute("SELECT name FROM files WHERE disk = 'present' ORDER BY name") if files]
    os.replace(part, target / database.path.name)
    return Backup(str(target), jobs, count, size, tuple(name for name in names if not (target / "projects" / name).exists()))


def _files_of(folder: Path) -> Iterator[Path]:
    """Every whole file below a folder; a `.part` belongs to whoever writes it."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in sorted(names) if not name.endswith(".part"))


class Pace:
    """Passes a sentence on every two seconds."""

    def __init__(self, tell: Tell) -> None:
        self._tell, self._told_at = tell, time.monotonic()

    def say(self, text: str) -> None:
        """Say it, if it is time."""
        if time.monotonic() - self._told_at >= SAY_EVERY_S:
            self._told_at = time.monotonic()
            self._tell(text)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"
