"""The files the engine writes: names, numbers and formats as ComfyUI has them.

Owns the numbering of file names, the refusal to leave the output folder, PNG text chunks and the MP4 encoder. It must not
know nodes or queues. Apart from nodes.py because file names follow rules of their own, recorded one by one. The same request
gives the same bytes: no dates, one encoder thread, bit-exact flags.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

JPEG_QUALITY = 95  # of ComfyUI's previews
# mbtree with B-frames gave the same 17 frames up to 14 different files in 60, on a busy machine (x264 core 165); without it always one.
H264 = {"preset": "veryfast", "flags": "+bitexact", "x264-params": "mbtree=0"}
PNG_LEVEL = {"output": 4, "temp": 1}  # SaveImage and PreviewImage


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next file of a prefix goes."""

    folder: Path
    subfolder: str
    stem: str
    number: int

    def name(self, item: int, suffix: str) -> str:
        """Name the file of batch item `item`, as `<stem>_00001_.png`."""
        return f"{self.stem.replace('%batch_num%', str(item))}_{self.number + item:05}_{suffix}"


def place(root: Path, prefix: str, width: int, height: int) -> Place:
    """Find where files of this prefix go, making the folder.

    Raises:
        Exception: the prefix leads out of `root`; plain and in ComfyUI's words, as clients see it in execution_error.
    """
    path = os.path.normpath(_resolved(prefix, width, height))
    folder = Path(os.path.abspath(root / os.path.dirname(path)))
    if not folder.is_relative_to(root):
        common = os.path.commonpath((root, folder))
        raise Exception(
            "**** ERROR: Saving image outside the output folder is not allowed.\n"
            f" full_output_folder: {folder}\n         output_dir: {root}\n         commonpath: {common}\n"
        )
    folder.mkdir(parents=True, exist_ok=True)
    stem = os.path.basename(path)
    return Place(folder, os.path.dirname(path), stem, _next_number(folder, stem))


def _resolved(prefix: str, width: int, height: int) -> str:
    if "%" not in prefix:
        return prefix
    now = time.localtime()
    words: dict[str, object] = {"width": width, "height": height, "year": now.tm_year}
    words |= {"month": f"{now.tm_mon:02}", "day": f"{now.tm_mday:02}"}
    words |= {"hour": f"{now.tm_hour:02}", "minute": f"{now.tm_min:02}", "second": f"{now.tm_sec:02}"}
    for word, value in words.items():
        prefix = prefix.replace(f"%{word}%", str(value))
    return prefix


def _next_number(folder: Path, stem: str) -> int:
    """Count on from the highest number there is; like ComfyUI by listing the whole folder."""
    numbers = (name[len(stem) + 1 :].split("_")[0] for name in os.listdir(folder) if name.startswith(f"{stem}_"))
    return max((int(number) for number in numbers if number.isdigit()), default=0) + 1


def notes(prompt: Any, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """Give the texts that go into a file: the graph as `prompt`, and every key of `extra_pnginfo`."""
    return {key: json.dumps(value) for key, value in ({"prompt": prompt} | dict(extra or {})).items()}


def save_pictures(root: Path, kind: str, prefix: str, pictures: NDArray[np.uint8], texts: Mapping[str, str]) -> list[dict[str, str]]:
    """Write one PNG per picture and give their references."""
    _, height, width, _ = pictures.shape
    where = place(root, prefix, width, height)
    chunks = PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    names = [where.name(item, ".png") for item in range(len(pictures))]
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(where.folder / name, pnginfo=chunks, compress_level=PNG_LEVEL[kind])
    return [{"filename": name, "subfolder": where.subfolder, "type": kind} for name in names]


def save_clip(root: Path, prefix: str, frames: NDArray[np.uint8], fps: float, texts: Mapping[str, str]) -> dict[str, str]:
    """Write frames as H.264 in an MP4 (yuv420p, exactly these frames at exactly this rate) and give its reference."""
    import av  # imported at first need: start-up has to be quick

    _, height, width, _ = frames.shape
    where = place(root, prefix, width, height)
    name, rate = where.name(0, ".mp4"), Fraction(round(fps * 1000), 1000)
    with av.open(str(where.folder / name), "w", options={"movflags": "use_metadata_tags", "fflags": "+bitexact"}) as file:
        for key, text in texts.items():
            file.metadata[key] = text
        stream = file.add_stream("libx264", rate=rate, options=H264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = number, 1 / rate
            file.mux(stream.encode(picture))
        file.mux(stream.encode())
    return {"filename": name, "subfolder": where.subfolder, "type": "output"}


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Encode a preview."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def reencoded(file: Path, format: str, quality: int) -> bytes:
    """Encode a picture file anew for /view?preview=."""
    buffer = io.BytesIO()
    with Image.open(file) as picture:
        (picture.convert("RGB") if format == "jpeg" else picture).save(buffer, format, quality=quality)
    return buffer.getvalue()
