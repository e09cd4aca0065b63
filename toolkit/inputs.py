"""What users bring into a home: pictures to begin with, kept once by their hash, and wildcard lists.

Owns `inputs/<sha256>.png` and the reading of `wildcards/`. A picture is looked at before it is decoded, turned upright, and kept as PNG, so that
a request that names it can be run again in a year, on any server. Knows no job and no server.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rapidfuzz import process as fuzzy

from toolkit.errors import OutputError, RequestInvalid
from toolkit.requests import ImageRef

if TYPE_CHECKING:
    from PIL import Image

SIZE_LIMIT = 20_000_000  # bytes
PIXEL_LIMIT = 64_000_000  # a picture of 8000 x 8000; decoding takes four bytes for each
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
DECODING = threading.BoundedSemaphore(2)  # 64 megapixels are 256 MB while they are decoded: who sends forty at once waits
LIST_LIMIT = 2_000_000  # bytes of a wildcard list


class InputStore:
    """The input pictures of a home."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "inputs"

    def path(self, sha256: str) -> Path:
        """Where the picture of this hash is kept."""
        return self.folder / f"{sha256}.png"

    def keep(self, source: Any) -> ImageRef:
        """Keep a picture: bytes, a path, or a PIL.Image; of several frames the first.

        Raises:
            RequestInvalid: it is no picture, or larger than 20 MB or 64 megapixels. OutputError: it cannot be stored.
        """
        data, width, height = _as_png(source)
        digest = hashlib.sha256(data).hexdigest()
        self._write(self.path(digest), data)
        return ImageRef(sha256=digest, width=width, height=height)

    def find(self, sha256: str) -> ImageRef:
        """The reference of a picture that is kept, with its size.

        Raises:
            RequestInvalid: nobody brought it.
        """
        from PIL import Image

        try:
            if not re.fullmatch("[0-9a-f]{64}", sha256):
                raise FileNotFoundError(sha256)
            with Image.open(self.path(sha256)) as picture:
                return ImageRef(sha256=sha256, width=picture.width, height=picture.height)
        except OSError as error:
            said = f"There is no input picture {sha256[:12]} in this home."
            raise RequestInvalid(said, field="image", hint="Upload it: POST /api/anime/uploads, or studio.upload(picture).") from error

    def _write(self, path: Path, data: bytes) -> None:
        if path.exists():
            return
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(part, path)  # equal bytes whoever is faster
        except OSError as error:
            raise OutputError(f"{path} cannot be written: {error.strerror}.", path=str(path)) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _as_png(source: Any) -> tuple[bytes, int, int]:
    """Bytes, width and height; a PNG stays as it is, unless it lies on its side."""
    from PIL import Image

    if isinstance(source, Image.Image):
        return _encoded(source)
    data = source if isinstance(source, bytes) else _read(source)
    if len(data) > SIZE_LIMIT:
        raise RequestInvalid(f"The picture has {len(data) / 1e6:.0f} MB; at most {SIZE_LIMIT / 1e6:.0f} are taken.", field="image")
    try:
        with DECODING, Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > PIXEL_LIMIT:
                raise _too_large(f"{picture.width}x{picture.height}")
            picture.load()
            if picture.format == "PNG" and picture.getexif().get(0x0112, 1) == 1:  # 0x0112: orientation
                return data, picture.width, picture.height
            return _encoded(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # of Pillow, whose own limit is higher and comes first
        raise _too_large("far too many") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        if isinstance(error, RequestInvalid):
            raise
        raise RequestInvalid("That is no picture we can read.", field="image", hint="PNG, JPEG, WebP, GIF, BMP, TIFF and AVIF are.") from error


def _too_large(pixels: str) -> RequestInvalid:
    return RequestInvalid(f"The picture has {pixels} pixels; at most {PIXEL_LIMIT / 1e6:.0f} megapixels are taken.", field="image")


def _encoded(picture: Image.Image) -> tuple[bytes, int, int]:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(picture)
    upright = upright if upright.mode in ("RGB", "RGBA", "L", "LA") else upright.convert("RGBA" if "transparency" in upright.info else "RGB")
    buffer = io.BytesIO()
    upright.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue(), upright.width, upright.height


def _read(source: Any) -> bytes:
    try:
        path = Path(source)
        if path.stat().st_size > SIZE_LIMIT:
            raise RequestInvalid(f"{path.name} has {path.stat().st_size / 1e6:.0f} MB; at most {SIZE_LIMIT / 1e6:.0f} are taken.", field="image")
        return path.read_bytes()
    except TypeError as error:
        raise RequestInvalid(f"{type(source).__name__} is no picture: give a path, bytes, a PIL.Image or one of our outputs.", field="image") from error
    except OSError as error:
        raise RequestInvalid(f"{str(source)[:200]} cannot be read: {error.strerror}.", field="image") from error
    except ValueError as error:
        if isinstance(error, RequestInvalid):
            raise
        raise RequestInvalid(f"{str(source)[:200]!r} is no file name: {error}.", field="image") from error


class WildcardFolder:
    """The lists of a home: `wildcards/colors/warm.txt` is `__colors/warm__`; `__colors/*__` is all below a folder."""

    def __init__(self, home: Path) -> None:
        self.folder = home / "wildcards"

    def __call__(self, name: str) -> Sequence[str] | None:
        """The lines of a list; None where there is none.

        Raises:
            RequestInvalid: a list that is not UTF-8 or far too long; a name that nearly fits another is told.
        """
        files = [path for path in self._files() if self._fits(path, name)]
        if not files:
            near = fuzzy.extractOne(name, self.names(), score_cutoff=75)
            if near is not None:
                raise RequestInvalid(f"There is no wildcard list '{name}'.", field="prompt", hint=f"Did you mean __{near[0]}__?")
            return None
        return [line for path in sorted(files) for line in _lines(path)]

    def names(self) -> list[str]:
        """All lists, as they are written between two pairs of underscores."""
        return sorted(self._name(path) for path in self._files())

    def _files(self) -> list[Path]:
        root = os.path.realpath(self.folder)
        return [path for path in self.folder.rglob("*.txt") if os.path.commonpath([root, os.path.realpath(path)]) == root]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).with_suffix("").as_posix()

    def _fits(self, path: Path, name: str) -> bool:
        own = self._name(path).lower()
        return own.startswith(name[:-1].lower()) if name.endswith("*") else own == name.lower()


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > LIST_LIMIT:
            raise RequestInvalid(f"The wildcard list {path.name} has more than {LIST_LIMIT / 1e6:.0f} MB.", field="prompt")
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise RequestInvalid(f"The wildcard list {path.name} is not UTF-8 (byte {error.start}).", field="prompt") from error
    except OSError as error:
        raise RequestInvalid(f"The wildcard list {path.name} cannot be read: {error.strerror}.", field="prompt") from error
