"""Files on our side: streamed from the server, checked, hashed, named by us, never half under a final name.

Owns `projects/` of a home: `<project>/<date>/<time>-<job>-<n>.<ext>` and a `.json` sidecar beside each. A name comes from the job, so a
download that is done again after a crash finds its own file and adopts it when the bytes are equal. User text never gets into a path. What a
picture or clip says of itself is written into it on the way (metadata/), so size and hash are those of the file as it lies here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any

from toolkit.crashpoints import reached
from toolkit.decoding import extension_of, kind_of, look_into
from toolkit.errors import DiskFull, HomeUnusable, OutputError, ToolkitError
from toolkit.jobs import Job, OutputFile
from toolkit.metadata import annotate, in_png
from toolkit.pace import Pace
from toolkit.protocol import ServerOutput

log = logging.getLogger(__name__)

READABLE = json.JSONEncoder(ensure_ascii=False)  # made once: `json.dumps` makes one for each call with options
BATCH_BYTES = 2**20
SHORT_BYTES = 2**16  # a file that is written and decoded in a millisecond or two


class OutputStore:
    """The projects folder of a home."""

    def __init__(self, home: Path) -> None:
        self.projects = home / "projects"
        self.bin = home / "trash"
        self._pace = Pace()
        self._unsettled: set[Path] = set()  # folders

    def place(self, job: Job, number: int, extension: str, attempt: int = 1) -> Path:
        """Where a job's n-th file belongs; the same at every call, and another for each attempt, whose bytes may differ."""
        when = datetime.fromtimestamp(job.created.wall).astimezone()
        folder = self.projects / job.project / f"{when:%Y-%m-%d}"
        again = f"-try{attempt}" if attempt > 1 else ""
        path = folder / f"{when:%H%M%S}-{job.id[:8]}-{number}{again}.{extension}"
        odd = os.sep in job.project or job.project == ".." or any(map(os.path.islink, (folder, folder.parent)))
        if odd and not folder.resolve().is_relative_to(self.projects.resolve()):  # resolving asks the disk for each part of the path
            raise OutputError(f"The folder of project '{job.project}' lies outside {self.projects}.", path=str(folder))
        return path

    async def save(
        self, job: Job, attempt: int, number: int, output: ServerOutput, chunks: AsyncIterator[bytes], length: int | None, *, cached: bool = False,
        notes: Mapping[str, str] | None = None, then: Callable[[OutputFile], object] = lambda file: None,
    ) -> OutputFile:  # fmt: skip
        """Stream a file to disk, check it and give it its name, which `settle` makes durable.

        Args:
            job: whose file it is.
            attempt: the try that made it, 1-based.
            number: its place in the job, 1-based.
            output: what the server calls it.
            chunks: its bytes.
            length: how many bytes there should be, if known: as they come, before anything is written into them.
            cached: the server reused an older file; ours is a copy.
            notes: what a PNG, MP4 or WebM shall say of itself; other kinds stay as they are, and so does what cannot take them.
            then: called with the file that has its name, on the thread that gave it.

        Raises:
            DiskFull: no room; nothing is left behind. OutputError: too short, not decodable, or the name is taken by other bytes.
        """
        extension = extension_of(output.filename or "text.txt")
        path = self.place(job, number, extension, attempt)
        part = _Part(path.with_name(f".{path.name}.part"))
        kind, media_type = kind_of(path.name)

        def finished() -> OutputFile:
            size, digest = part.finish()
            looked = look_into(part.path, kind)
            if notes and extension in ("mp4", "webm"):
                size, digest = _annotated(part.path, extension, notes, (size, digest))
            _publish(part.path, path, digest)
            self._unsettled.add(path.parent)
            name = f"{job.project}/{path.parent.name}/{path.name}"
            file = OutputFile(
                number, str(path), name, kind, media_type, size, digest, looked.width, looked.height, looked.frames, looked.fps,
                cached, output.is_temporary, looked.blank, "present", attempt, output.node_id, time.time(),
            )  # fmt: skip
            then(file)
            return file

        try:
            came = await part.receive(chunks, notes if extension in ("png", "apng") else None)
            if length is not None and came != length:
                raise OutputError(f"{output.filename} ended after {came} of {length} bytes.", path=str(path))
            if kind != "video" and came <= SHORT_BYTES and self._pace.is_quick():
                with self._pace.timed():
                    return finished()
            return await asyncio.get_running_loop().run_in_executor(None, finished)  # a disk takes its time, and a clip seconds to decode: the others go on
        except ToolkitError:  # ServerUnreachable is an OSError too, and no fault of our disk
            raise
        except OSError as error:
            raise _explained(error, path) from error
        finally:
            part.discard()

    def settle(self) -> None:
        """Make the names durable that `save` has given, whoever asked for it: before this a power cut may take them.

        Raises:
            HomeUnusable: the disk will not.
        """
        while self._unsettled:
            folder = self._unsettled.pop()
            try:
                _sync_folder(folder)
            except OSError as error:
                self._unsettled.add(folder)
                raise HomeUnusable(f"{folder} cannot be used: {error.strerror}.", path=str(folder), hint="Is its disk failing?") from error

    def adopt(self, job: Job, source: Path, digest: str) -> OutputFile:
        """Give a whole file that lies elsewhere a name here, as the first of a job: by a hard link where the disk can, else by a copy.

        Raises:
            OutputError: it does not decode, or cannot be read. DiskFull: there is no room for a copy.
        """
        extension = extension_of(source.name)
        path = self.place(job, 1, extension)
        kind, media_type = kind_of(path.name)
        looked = look_into(source, kind)
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.unlink(missing_ok=True)
            try:
                os.link(source, part)
            except OSError:
                shutil.copy2(source, part)
            _publish(part, path, digest)
            _sync_folder(path.parent)
            size = path.stat().st_size
        except OSError as error:
            raise _explained(error, path) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        name, sizes = path.relative_to(self.projects).as_posix(), (looked.width, looked.height, looked.frames, looked.fps)
        return OutputFile(1, str(path), name, kind, media_type, size, digest, *sizes, blank=looked.blank, stored_at=time.time())

    def write_sidecar(self, job: Job, file: OutputFile, recipe: Mapping[str, Any], server_url: str | None) -> Path:
        """Put what made a file beside it, as JSON."""
        path = sidecar_of(Path(file.path))
        about = {
            "job_id": job.id, "output": file.number, "attempt": file.attempt, "file": Path(file.path).name, "media_type": file.media_type,
            "size_bytes": file.size_bytes, "sha256": file.sha256, "width": file.width, "height": file.height, "frames": file.frames, "fps": file.fps,
            "cached": file.cached, "temporary": file.temporary, "simulated": bool(recipe.get("simulated")), "server_url": server_url,
            "created_at": job.created.utc.isoformat(), "request": job.request.as_json(),
            "recipe": {name: value for name, value in recipe.items() if name != "parameters" and value is not None},
        }  # fmt: skip
        part = path.with_name(f".{path.name}.part")
        try:
            # a fact a line; json's own `indent` is written in Python, and takes ten times as long
            lines = ",\n".join(f' "{name}": {READABLE.encode(value)}' for name, value in about.items())
            with part.open("wb", buffering=0) as stream:
                _write_all(stream, f"{{\n{lines}\n}}\n".encode(errors="backslashreplace"))
            os.replace(part, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise _explained(error, path) from error
        return path

    # ---- what people keep ---------------------------------------------------------------------------------------------

    def trash(self, name: str) -> None:
        """Move a file and its sidecar to the bin; one that was moved before stays there.

        Raises:
            OutputError: it cannot be moved.
        """
        _move(self.projects / name, self.bin / name)

    def restore(self, name: str) -> None:
        """Move a file and its sidecar back from the bin.

        Raises:
            OutputError: it is not there, or its place is taken by another file.
        """
        _move(self.bin / name, self.projects / name)

    def delete(self, path: str) -> int:
        """Delete a file and its sidecar; returns how many bytes that was.

        Raises:
            OutputError: it is none of ours, or cannot be deleted.
        """
        if not any(Path(path).is_relative_to(root) for root in (self.projects, self.bin)):
            raise OutputError(f"{path} is no file of this home.", path=path)
        freed = 0
        for part in (Path(path), sidecar_of(Path(path))):
            with contextlib.suppress(FileNotFoundError):
                freed += os.stat(part).st_size
                part.unlink()
        return freed

    def keep_sheet(self, project: str, name: str, sheet: Any) -> OutputFile:
        """Write a contact sheet, a PIL.Image, below its project, over an older one of this name."""
        path = self.projects / project / "sheets" / name
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet.save(part, "PNG")
            data = part.read_bytes()
            os.replace(part, path)
        except OSError as error:
            raise _explained(error, path) from error
        digest, place = hashlib.sha256(data).hexdigest(), path.relative_to(self.projects).as_posix()
        return OutputFile(1, str(path), place, "image", "image/png", len(data), digest, sheet.width, sheet.height, 1, stored_at=time.time())


def _move(source: Path, target: Path) -> None:
    """Rename a file and its sidecar to where nothing may be; what is already there and no longer here was moved before."""
    if target.exists() and not source.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)  # unlike a rename it never replaces another file
        source.unlink()
        with contextlib.suppress(FileNotFoundError):
            os.replace(sidecar_of(source), sidecar_of(target))
    except OSError as error:
        raise OutputError(f"{source} cannot be moved to {target.parent}: {error.strerror}.", path=str(source)) from error


def sidecar_of(path: Path) -> Path:
    """Where the sidecar of a file is: its name with `.json`, which an output that is JSON itself already has."""
    return path.with_name(f"{path.name}.json") if path.suffix == ".json" else path.with_suffix(".json")


async def text_chunks(text: str) -> AsyncIterator[bytes]:
    """A text output as the chunks of a file."""
    yield text.encode()


class _Part:
    """A file on its way: its bytes go to disk on a thread, a batch at a time, so that a small one costs one visit there and a slow disk stops nobody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size, self._digest = 0, hashlib.sha256()
        self._stream: FileIO | None = None
        self._batch: list[bytes] = []

    async def receive(self, chunks: AsyncIterator[bytes], notes: Mapping[str, str] | None) -> int:
        """Take a file with its notes, the last of it in memory until `finish`; returns how many bytes came."""
        came = held = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal came
            async for chunk in chunks:
                came += len(chunk)
                yield chunk

        async for chunk in in_png(counted(), notes) if notes else counted():
            self._batch.append(chunk)
            held += len(chunk)
            if held >= BATCH_BYTES:
                held = 0
                await asyncio.to_thread(self._write)
        return came

    def finish(self) -> tuple[int, str]:
        """Write what is left and make it durable; size and hash as it lies there."""
        stream = self._write()
        os.fsync(stream.fileno())
        kept = os.fstat(stream.fileno()).st_size
        if kept != self._size:
            raise OSError(errno.EIO, f"the disk kept {kept} of {self._size} bytes")
        stream.close()
        return self._size, self._digest.hexdigest()

    def discard(self) -> None:
        """Take the file away under this name; what was published has another."""
        with contextlib.suppress(OSError):
            if self._stream is not None:
                self._stream.close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _write(self) -> FileIO:
        if self._stream is None:
            try:
                self._stream = self.path.open("wb", buffering=0)
            except FileNotFoundError:  # the first of the day
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._stream = self.path.open("wb", buffering=0)
        batch, self._batch = self._batch, []
        for chunk in batch:
            _write_all(self._stream, chunk)
            reached("chunk written", self._stream)
            self._digest.update(chunk)
            self._size += len(chunk)
        return self._stream


def _write_all(stream: FileIO, data: bytes) -> None:
    """Write without a buffer: each call that one adds hands the interpreter's lock to another thread, and a job has many small files."""
    done = 0
    while done < len(data):
        done += stream.write(memoryview(data)[done:])


def _annotated(part: Path, muxer: str, notes: Mapping[str, str], came: tuple[int, str]) -> tuple[int, str]:
    """Write a clip's notes into it; its new size and hash, or the ones it came with if it stays as it is."""
    copy = part.with_name(f"{part.name.removesuffix('.part')}.noted.part")
    try:
        annotate(part, copy, muxer, notes)
        with copy.open("rb+") as stream:
            os.fsync(stream.fileno())
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = os.fstat(stream.fileno()).st_size
        os.replace(copy, part)
    except ValueError as error:
        log.warning("%s is kept as it came, without its prompt in it: %s", part.name, error)
        return came
    finally:
        copy.unlink(missing_ok=True)
    return size, digest


def _publish(part: Path, path: Path, digest: str) -> None:
    """Give the finished file its name, without ever replacing another's; an equal one from before a crash is adopted."""
    try:
        os.link(part, path)
    except FileExistsError:
        _adopt(path, digest)
    except PermissionError:  # a file system without hard links
        if path.exists():
            _adopt(path, digest)
        else:
            os.rename(part, path)


def _adopt(path: Path, digest: str) -> None:
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
            raise OutputError(f"{path} is taken by another file.", path=str(path)) from None


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; some systems cannot open folders."""
    with contextlib.suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _explained(error: OSError, path: Path) -> OutputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"The disk of {path.parent} is full.", path=str(path), hint="Make room; the job goes on by itself.")
    if error.errno in (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM):
        return DiskFull(f"{path} cannot be written: {error.strerror}.", path=str(path), hint="Mend the disk or its permissions; the job goes on by itself.")
    return OutputError(f"{path} cannot be written: {error.strerror}.", path=str(path))
