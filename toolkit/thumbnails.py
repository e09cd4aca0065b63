"""Small WebP pictures of outputs for cards, saved notebooks and the page; the first frame of a clip is its poster.

Owns how an output is decoded to pixels. Knows no job.
"""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

THUMBNAIL_LIMIT = 40_000  # bytes: a notebook with six cards stays far below 300 kB


def open_image(path: str | Path, kind: str) -> Image.Image:
    """The picture, or the first frame of a clip, as RGB.

    Raises:
        OutputError: the file is gone, does not decode, or has no pixels.
    """
    from PIL import Image

    try:
        if kind == "video":
            return Image.fromarray(next(iter(_frames(Path(path)))))
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, StopIteration, SyntaxError, EOFError, RuntimeError, Image.DecompressionBombError) as error:
        raise OutputError(f"{Path(path).name} cannot be shown: {str(error) or 'no frames'}.", path=str(path)) from error


def open_array(path: str | Path, kind: str) -> NDArray[np.uint8]:
    """All frames: (frames, height, width, 3) uint8 RGB; a picture has one frame.

    Raises:
        OutputError: the file is gone or does not decode.
    """
    import numpy as np

    if kind == "video":
        frames = list(_frames(Path(path)))
        if not frames:
            raise OutputError(f"{Path(path).name} has no frames.", path=str(path))
        return np.stack(frames)
    return np.asarray(open_image(path, kind), dtype=np.uint8)[None]


def _frames(path: Path) -> Any:
    import av

    try:
        with av.open(str(path), mode="r") as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, IndexError) as error:
        raise OutputError(f"{path.name} does not decode: {error}.", path=str(path)) from error


@lru_cache(maxsize=256)
def thumbnail(path: str, kind: str, side: int = 512, limit: int = THUMBNAIL_LIMIT) -> bytes:
    """A WebP of at most `limit` bytes whose longer side is at most `side` pixels.

    Raises:
        OutputError: the file is gone or does not decode.
    """
    picture = open_image(path, kind)
    picture.thumbnail((side, side))
    for quality in (85, 70, 50, 30, 15):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=4)
        if buffer.tell() <= limit:
            return buffer.getvalue()
    return thumbnail(path, kind, side // 2, limit)
