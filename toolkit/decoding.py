"""What a file is: its kind by its name, and what decoding it shows. Decodes whole files; owns none of them."""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from toolkit.errors import OutputError

KINDS = {
    "image": {"png", "jpg", "jpeg", "webp", "gif", "bmp", "apng", "avif", "tiff"},
    "video": {"mp4", "webm", "mkv", "mov", "avi"},
    "audio": {"mp3", "wav", "flac", "ogg", "opus", "m4a"},
    "model3d": {"glb", "gltf", "obj", "fbx", "stl", "ply", "usdz"},
    "latent": {"latent", "safetensors"},
    "text": {"txt", "md", "json", "csv", "srt"},
}


@dataclass(frozen=True, slots=True)
class Looked:
    """What decoding a file showed: pixels, frames, frames a second, and whether it is one colour."""

    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    blank: bool | None = None


def extension_of(filename: str) -> str:
    """A plain extension from whatever name the server gives."""
    suffix = PurePosixPath(filename.replace("\\", "/")).suffix.lower().lstrip(".")
    return suffix if re.fullmatch(r"[a-z0-9]{1,11}", suffix) else "bin"


def kind_of(filename: str) -> tuple[str, str]:
    """Kind and media type by extension: ComfyUI lists clips under `images`."""
    extension = extension_of(filename)
    kind = next((kind for kind, known in KINDS.items() if extension in known), "other")
    media_type = {"webp": "image/webp", "avif": "image/avif", "glb": "model/gltf-binary"}.get(extension) or mimetypes.guess_type(filename)[0]
    return kind, media_type or "application/octet-stream"


def look_into(path: Path, kind: str) -> Looked:
    """Decode a file whole; for other kinds than pictures and clips nothing is known.

    Raises:
        OutputError: it does not decode.
    """
    try:
        if kind == "image":
            return _look_into_picture(path)
        if kind == "video":
            return _look_into_clip(path)
    except OSError as error:
        if error.errno is not None:
            raise
        raise OutputError(f"{path.name} does not decode: {error}.", path=str(path)) from error
    except Exception as error:  # decoders raise anything for broken files: struct.error, IndexError, zlib.error
        raise OutputError(f"{path.name} does not decode: {error}.", path=str(path)) from error
    return Looked()


def _look_into_picture(path: Path) -> Looked:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
            extrema = picture.convert("RGB").getextrema()
            frames = int(getattr(picture, "n_frames", 1))
            blank = frames == 1 and all(low == high for low, high in extrema)  # type: ignore[misc]
            return Looked(picture.width, picture.height, frames, None, blank)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error


def _look_into_clip(path: Path) -> Looked:
    import av

    try:
        with av.open(str(path), mode="r") as container:
            stream = container.streams.video[0]
            rate = stream.average_rate
            frames = sum(1 for _ in container.decode(stream))
            if frames == 0:
                raise ValueError("no frames")
            return Looked(stream.width, stream.height, frames, float(rate) if rate else None, None)
    except (av.FFmpegError, IndexError) as error:
        raise ValueError(str(error)) from error
