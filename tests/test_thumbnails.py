"""thumbnails: small WebP pictures of whatever decodes, and one sentence for what does not."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from toolkit.errors import OutputError
from toolkit.thumbnails import THUMBNAIL_LIMIT, open_array, open_image, thumbnail


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A picture that compresses badly."""
    path = tmp_path / "noise.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (1200, 800, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 + n * 40, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return path


def decoded(data: bytes) -> Any:
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "WEBP"
    return picture


def test_a_thumbnail_is_small_in_pixels_and_bytes(noise):
    data = thumbnail(str(noise), "image")
    assert len(data) <= THUMBNAIL_LIMIT
    assert max(decoded(data).size) <= 512
    assert decoded(data).size[1] / decoded(data).size[0] == pytest.approx(1.5, abs=0.02)


@pytest.mark.parametrize("limit", [40_000, 5_000, 1_000, 300])
def test_a_tighter_limit_is_kept_too(noise, limit):
    data = thumbnail(str(noise), "image", 256, limit)
    assert len(data) <= limit
    assert max(decoded(data).size) <= 256


def test_a_small_picture_is_not_enlarged(tmp_path):
    Image.new("RGB", (20, 30), (1, 2, 3)).save(tmp_path / "small.png")
    assert decoded(thumbnail(str(tmp_path / "small.png"), "image")).size == (20, 30)


def test_the_poster_of_a_clip_is_its_first_frame(clip):
    picture = open_image(clip, "video")
    assert picture.size == (64, 48)
    assert np.asarray(picture).mean() == pytest.approx(40, abs=4)
    assert decoded(thumbnail(str(clip), "video")).size == (64, 48)


def test_an_array_has_all_frames_as_rgb(clip, noise):
    frames = open_array(clip, "video")
    assert (frames.shape, frames.dtype) == ((5, 48, 64, 3), np.uint8)
    assert [round(float(frame.mean()) / 40) for frame in frames] == [1, 2, 3, 4, 5]
    assert open_array(noise, "image").shape == (1, 1200, 800, 3)


@pytest.mark.parametrize("mode", ["RGBA", "L", "P", "I;16", "1", "CMYK"])
def test_every_mode_of_a_picture_is_shown_as_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new(mode, (9, 7)).save(path)
    assert open_image(path, "image").mode == "RGB"
    assert open_array(path, "image").shape == (1, 7, 9, 3)


HUGE = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("data", [None, b"", b"nonsense" * 10, HUGE], ids=["gone", "empty", "nonsense", "huge"])
def test_what_is_no_picture_is_one_sentence(tmp_path, data):
    path = tmp_path / "a.png"
    if data is not None:
        path.write_bytes(data)
    for show in (open_image, open_array):
        with pytest.raises(OutputError, match=r"a.png cannot be shown") as refused:
            show(path, "image")
        assert refused.value.path == str(path)
    with pytest.raises(OutputError, match="cannot be shown"):
        thumbnail(str(path), "image")


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.95])
def test_a_picture_that_was_cut_off_is_one_sentence(noise, cut):
    whole = noise.read_bytes()
    noise.write_bytes(whole[: int(len(whole) * cut)])
    with pytest.raises(OutputError, match=r"noise.png cannot be shown"):
        open_image(noise, "image")


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "JPEG", "WEBP"])
def test_a_broken_picture_of_any_format_is_one_sentence(tmp_path, kind):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(buffer, kind)
    refused = 0
    for cut in range(1, len(buffer.getvalue()), max(1, len(buffer.getvalue()) // 40)):
        (tmp_path / "a").write_bytes(buffer.getvalue()[:cut])
        try:
            open_image(tmp_path / "a", "image")
        except OutputError:
            refused += 1
    assert refused > 5


def test_a_clip_that_does_not_decode_is_one_sentence(tmp_path, clip):
    for data in (b"nonsense" * 20, clip.read_bytes()[:300]):
        (tmp_path / "b.mp4").write_bytes(data)
        for show in (open_image, open_array):
            with pytest.raises(OutputError, match=r"b.mp4 does not decode"):
                show(tmp_path / "b.mp4", "video")
    with pytest.raises(OutputError, match=r"nothing.mp4 does not decode"):
        open_image(tmp_path / "nothing.mp4", "video")


def test_a_clip_without_a_frame_is_one_sentence(tmp_path):
    with av.open(str(tmp_path / "none.avi"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(OutputError, match=r"none.avi cannot be shown: no frames\."):
        open_image(tmp_path / "none.avi", "video")
    with pytest.raises(OutputError, match=r"none.avi has no frames\."):
        open_array(tmp_path / "none.avi", "video")


def test_a_thumbnail_is_made_once(noise):
    assert thumbnail(str(noise), "image") is thumbnail(str(noise), "image")
