"""Files come out the same, byte by byte, however often they are written."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from toolkit.engine import files, painting
from toolkit.engine.values import Coat, Guide, Latent


def test_same_frames_give_the_same_clip(tmp_path):
    y, x = np.mgrid[0:128, 0:192]
    disc = np.where(((x - 96) ** 2 + (y - 64) ** 2 < 1200)[..., None], np.uint8([255, 255, 255]), np.uint8([200, 40, 30]))
    canvas = painting.canvas(Latent(192, 128, 17, 1, coats=(Coat("1girl, silver hair", "", 7),), guides=(Guide(0, disc),)))
    frames = np.stack([painting.painted(canvas, 0, n) for n in range(17)])

    def written(n):  # several at once, so that how an encoder shares its work between threads would be seen
        files.save_clip(tmp_path / str(n), "clip", frames, 8.0, {})
        return (tmp_path / str(n) / "clip_00001_.mp4").read_bytes()

    with ThreadPoolExecutor(6) as threads:
        assert len(set(threads.map(written, range(36)))) == 1
