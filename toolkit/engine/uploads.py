"""Which file a request or a node means: the folders behind /view, /upload/image and LoadImage, and the ways out of them that are refused.

Owns the recorded answers to odd names (400, 403, 404) and the finding of uploaded pictures. It must not know HTTP beyond these
numbers. Apart from server.py since this is where a page could read or write what it should not.
"""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

KINDS = ("output", "temp", "input")


def viewed(home: Path, query: Mapping[str, str]) -> Path | int:
    """Find the file that a /view query means, or the status to answer."""
    if "filename" not in query:
        return 404
    name, kind = _annotated(query["filename"])
    if not name or name.startswith("/") or ".." in name:
        return 400
    kind = kind or query.get("type", "output")
    if kind not in KINDS:
        return 400
    folder = _inside(home / kind, query.get("subfolder", ""))
    if folder is None:
        return 403
    file = folder / os.path.basename(name)
    return file if file.is_file() else 404


def _annotated(name: str) -> tuple[str, str | None]:
    """Split `x.png [output]`, where the note wins over `type`."""
    for kind in KINDS:
        if name.endswith(f"[{kind}]"):
            return name.removesuffix(f"[{kind}]").rstrip(), kind
    return name, None


def _inside(folder: Path, subfolder: str) -> Path | None:
    inner = Path(os.path.abspath(folder / subfolder))
    return inner if inner.is_relative_to(folder) else None


def found(home: Path, name: str) -> Path | None:
    """Find the picture a node means by `name`, `subfolder/name` or `name [output]`; like /view, and unlike ComfyUI, never outside its folder."""
    plain, kind = _annotated(name)
    file = _inside(home / (kind or "input"), plain)
    return file if file and file.is_file() else None


def listing(home: Path, *, pictures: bool) -> list[str]:
    """List what was uploaded, the top of the folder only; `pictures` leaves out what is none by its name (ComfyUI nodes.py)."""
    names = sorted(file.name for file in (home / "input").iterdir() if file.is_file())
    return [name for name in names if not pictures or (mimetypes.guess_type(name, strict=False)[0] or "").startswith("image/")]


def fingerprint(home: Path, name: Any) -> str:
    """Give a digest of a picture's bytes; of nothing if it is not there."""
    file = found(home, name) if isinstance(name, str) else None
    return hashlib.sha256(file.read_bytes()).hexdigest() if file else ""


def keep(home: Path, form: Mapping[str, Any]) -> dict[str, str] | int:
    """Store an uploaded file and give its reference, or the status to answer.

    The same name and bytes are kept once; the same name with other bytes becomes `name (1).png`.

    Raises:
        ValueError: an unknown `type`; ComfyUI answers 500 to it.
    """
    image, kind, subfolder = form.get("image"), str(form.get("type", "input")), str(form.get("subfolder", ""))
    if kind not in KINDS:
        raise ValueError(kind)
    if not isinstance(image, web.FileField) or not image.filename:
        return 400
    folder = _inside(home / kind, os.path.normpath(subfolder))
    if folder is None or _inside(home / kind, os.path.join(subfolder, image.filename)) is None:
        return 400
    data = image.file.read()
    name = image.filename if form.get("overwrite") in ("true", "1") else _free_name(folder, image.filename, data)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return {"name": name, "subfolder": subfolder, "type": kind}


def _free_name(folder: Path, name: str, data: bytes) -> str:
    stem, suffix = os.path.splitext(name)
    number, wanted = 1, name
    while (folder / wanted).exists() and (folder / wanted).read_bytes() != data:
        wanted = f"{stem} ({number}){suffix}"
        number += 1
    return wanted
