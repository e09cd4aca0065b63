"""What people make, from words and pictures to checked files, by every family, on the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.conftest import end_children
from toolkit import ImageRequest, Studio, VideoRequest
from toolkit.errors import JobFailed, ModelUnknown, ParameterMissing, RequestInvalid
from toolkit.pipelines.families import CLIPS, PICTURES, Family
from toolkit.requests import request_of

SMALL = {"width": 256, "height": 384, "steps": 2}
CLIP = {"width": 256, "height": 160, "steps": 4}


@pytest.fixture(scope="module")
def studio(shared_home: Path) -> Iterator[Studio]:
    with Studio("engine", home=shared_home) as studio:
        yield studio


def drawing(color: str = "white", size: tuple[int, int] = (256, 384)) -> Image.Image:
    made = Image.new("RGB", size, color)
    ImageDraw.Draw(made).ellipse((60, 90, 190, 260), fill=(200, 60, 90))
    return made


def left_half(size: tuple[int, int] = (256, 384)) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    return mask


def nearness(one: Any, other: Any) -> float:
    """Mean difference of two pictures in 0..255."""
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


# ---- every family -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PICTURES, ids=lambda family: family.name)
def test_every_picture_family_goes_from_words_to_a_checked_file(studio: Studio, family: Family) -> None:
    model = {"illustrious": "standin_illustrious", "sdxl": "standin_xl.safetensors", "noobai": "standin_noobai", "animagine": "standin_animagine"}
    asked = model.get(family.name, f"standin_{family.name}" if family.files[0].folder == "checkpoints" else family.files[0].name)
    asked = "NetaYume" if family.name == "netayume" else asked
    result = studio.image("silver-haired girl, {rain|snow}", model=asked, seed=5, **SMALL).wait(60)
    (file,) = result.files
    assert (result.job.recipe["family"], file.file.width, file.file.height, file.file.blank) == (family.name, 256, 384, False)
    assert "silver-haired girl, " in result.job.prompt
    row = studio.sql("select family, prompt, seed from jobs where job_id = $id", id=result.job.id).fetchall()
    assert row == [(family.name, result.job.prompt, 5)]


@pytest.mark.parametrize("family", CLIPS, ids=lambda family: family.name)
def test_every_clip_family_goes_from_words_and_pictures_to_a_checked_clip(studio: Studio, family: Family) -> None:
    frames = 2 * family.frame_step + 1
    pictures = {"image": drawing("navy", (256, 160)), "last_image": drawing("green", (256, 160))}
    given = dict(list(pictures.items())[: family.pictures])
    model = None if family.pictures or not family.takes_picture else "5B"
    result = studio.video("she turns", model=model or family.files[0].name, seed=5, frames=frames, **CLIP, **given).wait(90)
    (clip,) = result.files
    assert result.job.recipe["family"] == family.name
    assert (clip.file.frames, clip.file.fps) == (frames, family.fps)
    shown = clip.array()
    for place, name in ((0, "image"), (-1, "last_image")):
        if name in given:
            assert nearness(shown[place], given[name].resize((shown.shape[2], shown.shape[1]))) < 12, f"{name} is not where it belongs"
    if family.pictures < 2:
        assert nearness(shown[0], shown[-1]) > 0.2, "nothing moves"


# ---- from a picture ---------------------------------------------------------------------------------------------------------


def test_a_picture_shows_through_the_less_is_made_anew(studio: Studio) -> None:
    begun = drawing("khaki")
    near, far = (studio.image("a fox", image=begun, denoise=denoise, seed=3, **SMALL).wait(60).files[0].image() for denoise in (0.2, 0.9))
    assert nearness(near, begun) < nearness(far, begun)
    assert nearness(near, begun) < 60


def test_only_what_the_mask_shows_is_made_anew(studio: Studio) -> None:
    begun = drawing("khaki")
    made = studio.image("a fox in the night", image=begun, mask=left_half(), seed=3, steps=2).wait(60).files[0].image()
    assert made.size == begun.size
    inside, outside = ((0, 0, 120, 384), (136, 0, 256, 384))
    assert nearness(made.crop(outside), begun.crop(outside)) < 0.5
    assert nearness(made.crop(inside), begun.crop(inside)) > 20


def test_a_second_pass_makes_it_larger_and_an_upscale_makes_nothing_new(studio: Studio) -> None:
    request = ImageRequest(prompt="a fox girl", seed=3, **SMALL)
    first, larger = (studio.submit(one).wait(60) for one in (request, request.but(upscale=1.5)))
    assert (larger.files[0].file.width, larger.files[0].file.height) == (384, 576)
    assert larger.job.recipe["steps"] == 4
    enlarged = first.files[0].upscale(2).wait(60)
    assert (enlarged.files[0].file.width, enlarged.files[0].file.height) == (512, 768)
    assert nearness(enlarged.files[0].image().resize((256, 384)), first.files[0].image()) < 6
    assert enlarged.job.recipe["choice"] == "only enlarged, by RealESRGAN_x4plus_anime_6B.pth"
    again = first.files[0].upscale(2, denoise=0.4).wait(60)
    assert "KSampler" in {node["class_type"] for node in again.files[0].workflow().api().values()}


def test_a_lora_changes_the_picture_and_is_in_the_log(studio: Studio) -> None:
    plain, inked = (studio.image(f"a fox girl{tag}", seed=3, model="standin_xl.safetensors", **SMALL).wait(60) for tag in ("", ", <lora:ink lines:0.8>"))
    assert nearness(plain.files[0].image(), inked.files[0].image()) > 0.5
    assert inked.job.prompt == plain.job.prompt
    rows = studio.sql("select unnest(loras) as lora from jobs where job_id = $id", id=inked.job.id).fetchall()
    assert rows == [({"name": "ink_lines_xl", "strength": 0.8},)]


def test_a_lora_of_another_architecture_is_refused_before_it_is_sent(studio: Studio) -> None:
    job = studio.image("a fox <lora:mika_v3:1>", model="sd15", seed=3, **SMALL)
    with pytest.raises(JobFailed, match=r"mika_v3.safetensors was made for SDXL and does nothing to SD 1\.5"):
        job.wait(60)
    assert (job.job.status, job.job.attempt) == ("rejected", 0)


# ---- pictures of the home ---------------------------------------------------------------------------------------------------


def test_a_clip_and_a_picture_of_ours_are_sources_too(studio: Studio) -> None:
    still = studio.image("a fox girl", seed=3, **SMALL).wait(60).files[0]
    clip = still.animate("she smiles", frames=9, steps=4, width=128, height=192).wait(90).files[0]
    assert clip.file.frames == 9
    from_clip = studio.upload(clip)
    assert (from_clip.width, from_clip.height) == (128, 192)
    assert studio.upload(still).sha256 == hashlib.sha256(Path(still.path).read_bytes()).hexdigest()


def test_a_server_that_lost_an_input_picture_gets_it_again(home: Path) -> None:
    with Studio("engine", home=home) as studio:
        request = ImageRequest(prompt="a fox", image=studio.upload(drawing("khaki")), denoise=0.3, seed=1, **SMALL)
        first = studio.submit(request).wait(60)
        uploaded = list((home / "engine" / "input").rglob("*.png"))
        assert [path.name for path in uploaded] == [f"{request.image.sha256}.png"]  # type: ignore[union-attr]
        uploaded[0].unlink()
        second = studio.submit(request.but(seed=2), reuse=False).wait(60)
        assert uploaded[0].exists()
        assert (first.job.status, second.job.status) == ("done", "done")
        (home / "inputs" / uploaded[0].name).unlink()
        with pytest.raises(RequestInvalid, match="no input picture"):
            studio.submit(request.but(seed=3))
    end_children(home)


# ---- stills, then clips -----------------------------------------------------------------------------------------------------


def test_stills_are_chosen_and_only_those_are_animated_in_one_group(studio: Studio) -> None:
    stills = studio.keyframes("a fox girl at the sea", 3, name="fox at sea", seed=40, **SMALL)
    stills.wait(60)
    assert [handle.job.seed for handle in stills] == [40, 41, 42]
    stills.animate(1, 3, prompt="wind in her hair", frames=5, steps=4, width=128, height=192)
    stills.wait(90)
    found = studio.batch("fox at sea")
    assert [handle.job.kind for handle in found] == ["image"] * 3 + ["video"] * 2
    assert found.failed == []
    rows = studio.sql("select kind, count(*) from jobs where group_name = 'fox at sea' group by all order by all").fetchall()
    assert rows == [("image", 3), ("video", 2)]
    clips = [handle.job for handle in found if handle.job.kind == "video"]
    kept = [hashlib.sha256(Path(found[place].job.files[0].path).read_bytes()).hexdigest() for place in (0, 2)]
    assert [clip.request.image.sha256 for clip in clips] == kept  # type: ignore[attr-defined]
    with pytest.raises(RequestInvalid, match="no still number 9: this batch has 3"):
        found.animate(9)


# ---- again, and what is missing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["image", "video"])
def test_a_file_alone_is_enough_to_make_it_again(studio: Studio, tmp_path: Path, kind: str) -> None:
    request = ImageRequest(prompt="a fox, {rain|snow}", seed=8, **SMALL) if kind == "image" else VideoRequest(prompt="wind", seed=8, frames=9, **CLIP)
    first = studio.submit(request, reuse=False).wait(90).files[0]
    given = tmp_path / f"from a friend{Path(first.path).suffix}"
    given.write_bytes(Path(first.path).read_bytes())
    assert request_of(given) == request
    again = studio.submit(request_of(given), reuse=False).wait(90).files[0]
    assert again.file.sha256 == first.file.sha256
    own = studio.run(given, seed=9, reuse=False).wait(90)
    assert (own.job.kind, own.job.seed) == ("workflow", 9)
    assert own.files[0].file.sha256 != first.file.sha256
    with pytest.raises(ParameterMissing, match=r"no parameter 'sede'\. Did you mean seed"):
        studio.run(given, sede=9)


def test_again_changes_what_is_said_and_keeps_the_seed(studio: Studio) -> None:
    first = studio.image("a fox", seed=3, **SMALL)
    first.wait(60)
    again = first.wait(1).files[0].again(cfg=4).wait(60)
    assert (again.job.request.cfg, again.job.seed, again.job.request.prompt) == (4, 3, "a fox")  # type: ignore[attr-defined]
    with pytest.raises(RequestInvalid, match="Unknown field `cgf`: did you mean `cfg`"):
        first.again(cgf=4)


def test_a_plan_counts_duplicates_and_names_what_is_missing(studio: Studio) -> None:
    request = ImageRequest(prompt="a plan", seed=3, **SMALL)
    plan = studio.plan([request, request, request.but(seed=4)])
    assert (plan.jobs, plan.duplicates, plan.faults) == (3, 1, [])
    studio.submit(request).wait(60)
    assert studio.plan(request).duplicates == 1
    assert "no model 'nobody'" in studio.plan(request.but(model="nobody")).faults[0]
    assert studio.plan(request).graph


def test_a_server_without_files_says_which_and_where(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOLKIT_ENGINE_MODELS", "sdxl")
    with Studio("engine", home=home) as studio:
        assert studio.servers()[0].can_make == ["sdxl"]
        assert studio.missing("image") == []
        assert [(file.folder, file.name) for file in studio.missing("wan22_5b")] == [
            ("diffusion_models", "wan2.2_ti2v_5B_fp16.safetensors"), ("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
            ("vae", "wan2.2_vae.safetensors"),
        ]  # fmt: skip
        with pytest.raises(ModelUnknown, match="models/diffusion_models"):
            studio.video("wind")
        with pytest.raises(RequestInvalid, match="Did you mean wan22_5b"):
            studio.missing("wan22_5")
        assert studio.jobs() == []
    end_children(home)
