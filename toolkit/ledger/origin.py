"""Where a home is and whose it is: no network disk, and a copy knows that it is one.

Owns `id`, `file`, `copied_from` and `held_to` in the ledger's meta, and the reading of the mount table. Knows jobs only by their place in the
line. A copy that ran the open jobs of its original would run them twice, so they are held until a person says that they shall run here.
"""

from __future__ import annotations

import os
import re
import uuid
from pathlib import Path

from toolkit.errors import HomeUnusable
from toolkit.jobs import OPEN
from toolkit.ledger.database import Database

MOUNTS = Path("/proc/self/mountinfo")
NETWORK_DISKS = frozenset(
    [
        "9p",
        "afs",
        "afpfs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "smb2",
        "smb3",
        "smbfs",
    ]
    + [f"fuse.{name}" for name in ("ceph", "davfs2", "gcsfuse", "glusterfs", "rclone", "s3fs", "sshfs")]
)  # SQLite's locks and shared memory need one kernel (sqlite.org/wal.html)
_OPEN = ", ".join(f"'{status}'" for status in sorted(OPEN))
HELD_TO = "coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'held_to'), 0)"


def refuse_network_disk(home: Path) -> None:
    """Let only a home on this machine pass; where the mount table cannot be read nothing is known, and it passes.

    Raises:
        HomeUnusable: naming the kind of disk.
    """
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    kind = disk_type(Path(os.path.realpath(home)), mounts)
    if kind in NETWORK_DISKS:
        said = f"{home} is on a network disk ({kind}), where several machines would write one ledger."
        raise HomeUnusable(said, path=str(home), hint="Set TOOLKIT_HOME to a folder on this machine.")


def disk_type(path: Path, mounts: str) -> str | None:
    """The file system of a path in the text of /proc/self/mountinfo: the longest mount point above it, the last one where several are stacked."""
    best, found = -1, None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        parts = before.split()
        if len(parts) < 5 or not after:
            continue
        point = Path(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), parts[4]))
        if len(point.parts) >= best and path.is_relative_to(point):
            best, found = len(point.parts), after.split()[0]
    return found


def identify(database: Database) -> str:
    """The id of this ledger; a file that is not the recorded one is a copy: checked, given a new id, its open jobs held.

    Raises:
        HomeUnusable: the copy is damaged.
    """
    file = _file_of(database.path)
    known = {row["key"]: str(row["value"]) for row in database.rows("SELECT key, value FROM meta")}
    if known.get("file") == file:
        return known["id"]
    if "file" in known:
        database.quick_check()  # a live `cp -r` was corrupt in 4 of 30 tries
    with database.transaction() as connection:
        known = {row["key"]: str(row["value"]) for row in connection.execute("SELECT key, value FROM meta")}
        if known.get("file") == file:  # another process has just found out
            return known["id"]
        new = {"id": known.get("id") or str(uuid.uuid4()), "file": file}
        if "file" in known:
            new |= {"id": str(uuid.uuid4()), "copied_from": known["id"]}
            (last,) = connection.execute(f"SELECT max(seq) FROM jobs WHERE status IN ({_OPEN})").fetchone()
            new |= {"held_to": str(last)} if last is not None else {}
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", new.items())
    return new["id"]


def _file_of(path: Path) -> str:
    """Disk and inode; the disk by its file system's id where that is known, since device numbers may change when a machine starts."""
    try:
        about = os.stat(path)
        disk = os.statvfs(path).f_fsid if hasattr(os, "statvfs") else 0
    except OSError as error:
        raise HomeUnusable(f"{path} is gone: {error.strerror}.", path=str(path), hint="Restart this program.") from error
    return f"{disk or about.st_dev} {about.st_ino}"
