"""The bytes of a job's files as answers: fixed content types, one range, nothing a browser would run.

Owns what may leave the home by name. Knows neither jobs nor routes.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from fastapi.responses import FileResponse

from toolkit.admission import Refused
from toolkit.jobs import OutputFile

# shown in place: nothing a browser would run; everything else is a download of unknown bytes
SHOWN_TYPES = re.compile(r"(image/(png|jpeg|webp|gif|bmp|apng|avif|tiff)|(video|audio)/[\w.+-]+)")
ONE_RANGE = re.compile(r"bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*")


def file_response(file: OutputFile, projects: Path, range_header: str | None) -> FileResponse:
    """A file below `projects`, or the one range of it that is asked for.

    Raises:
        Refused: 404 when it is gone, 400 for several ranges or what is none, 416 for one outside the file.
    """
    about = _stat(file, projects)
    _check_range(range_header, about.st_size)
    return _response(file, about)


def _stat(file: OutputFile, projects: Path) -> os.stat_result:
    """What is on the disk, if it is a plain file below `projects`: a link put there later leads nowhere."""
    root, name = os.path.realpath(projects), Path(file.path).name
    try:
        about = os.lstat(file.path)
    except OSError as error:
        raise Refused(404, "file_gone", f"'{name}' is no longer on the disk.") from error
    if not stat.S_ISREG(about.st_mode) or os.path.commonpath([root, os.path.realpath(file.path)]) != root:
        raise Refused(404, "file_gone", f"'{name}' is not a file of the home any more.")
    return about


def _check_range(header: str | None, size: int) -> None:
    """Refuse the ranges that a FileResponse would answer in plain text."""
    if header is None:
        return
    match = ONE_RANGE.fullmatch(header)
    start, end, last = match.groups() if match else (None, None, None)
    if match is None or (start and end and int(end) < int(start)):
        raise Refused(400, "bad_range", f"'{header[:80]}' is not one range of bytes.", hint="Write `Range: bytes=0-499`.")
    if (start and int(start) >= size) or (last is not None and int(last) == 0) or size == 0:
        raise Refused(416, "range_not_satisfiable", f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})


def _response(file: OutputFile, about: os.stat_result) -> FileResponse:
    shown = SHOWN_TYPES.fullmatch(file.media_type) is not None
    media_type = file.media_type if shown else "text/plain; charset=utf-8" if file.kind == "text" else "application/octet-stream"
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=3600",
        "ETag": f'"{file.sha256}"',
    }
    disposition = "inline" if shown else "attachment"
    return FileResponse(
        file.path, headers=headers, media_type=media_type, filename=Path(file.path).name, stat_result=about, content_disposition_type=disposition
    )
