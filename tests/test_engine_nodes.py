"""What each class does, asked over HTTP: graphs of every model family, and what people do with their pictures."""

import io
import json
import shutil
from itertools import pairwise

import aiohttp
import av
import numpy as np
import pytest
from PIL import Image

from tests.engines import running

PROMPT = "1girl, silver hair, blue eyes, school uniform, cherry blossoms, day"
OTHER = "1girl, red hair, green eyes, kimono, shrine, night"
WIDE, TALL = 128, 192


@pytest.fixture
async def client(tmp_path):
    async with running(tmp_path) as client:
        yield client


def node(kind, **inputs):
    """A node; a double underscore stands for the dot in the name of a dynamic input."""
    return {"class_type": kind, "inputs": {name.replace("__", "."): list(value) if isinstance(value, tuple) else value for name, value in inputs.items()}}


def sampler(seed=7, steps=2, denoise=1.0, model=("model", 0), positive=("positive", 0), negative=("negative", 0), latent=("latent", 0)):
    how = {"cfg": 5.0, "sampler_name": "euler", "scheduler": "simple", "denoise": denoise}
    return node("KSampler", seed=seed, steps=steps, model=model, positive=positive, negative=negative, latent_image=latent, **how)


def picture(prompt=PROMPT, **more):
    """A graph from words to a PNG; `more` replaces nodes or adds some."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name="standin_xl.safetensors"),
        "positive": node("CLIPTextEncode", text=prompt, clip=("model", 1)),
        "negative": node("CLIPTextEncode", text="", clip=("model", 1)),
        "latent": node("EmptyLatentImage", width=WIDE, height=TALL, batch_size=1),
        "sampled": sampler(),
        "decoded": node("VAEDecode", samples=("sampled", 0), vae=("model", 2)),
        "saved": node("SaveImage", images=("decoded", 0), filename_prefix="p"),
    } | more


def changed(name, prompt=OTHER, seed=11, denoise=1.0, **more):
    """A graph that makes something new of an uploaded picture."""
    nodes = {"loaded": node("LoadImage", image=name), "latent": node("VAEEncode", pixels=("loaded", 0), vae=("model", 2))}
    return picture(prompt, **nodes | {"sampled": sampler(seed, 2, denoise)} | more)


async def made(client, graph, output="saved"):
    """Run a graph and give the files of one output."""
    entry = await client.run({"prompt": graph})
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    return [client.engine.home / file["type"] / file["subfolder"] / file["filename"] for file in entry["outputs"][output]["images"]]


async def pixels(client, graph, output="saved"):
    """Run a graph and give its pictures: (n, height, width, 3)."""
    return np.stack([np.asarray(Image.open(file)) for file in await made(client, graph, output)])


async def uploaded(client, array, name="in.png", **fields):
    """Upload a picture and give the name that LoadImage takes."""
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    form = aiohttp.FormData(quote_fields=False)
    form.add_field("image", data.getvalue(), filename=name)
    for key, value in fields.items():
        form.add_field(key, value)
    status, answer = await client.call("POST", "/upload/image", data=form)
    assert status == 200
    where = f"{answer['subfolder']}/" if answer["subfolder"] else ""
    return f"{where}{answer['name']}" + (f" [{answer['type']}]" if answer["type"] != "input" else "")


async def shown(client, **nodes):
    """Run nodes and give what PreviewAny shows of `result`."""
    entry = await client.run({"prompt": nodes | {"shown": node("PreviewAny", source=("result", 0))}})
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
    return entry["outputs"]["shown"]["text"]


def distance(one, other):
    return float(np.abs(one.astype(np.int16) - other.astype(np.int16)).mean())


def painting():
    """A picture that no drawing is like: red above, blue below, a white disc."""
    y, x = np.mgrid[0:TALL, 0:WIDE]
    array = np.where((y < TALL / 2)[..., None], np.uint8([200, 40, 30]), np.uint8([20, 60, 190]))
    array[(x - WIDE / 2) ** 2 + (y - TALL / 2) ** 2 < 900] = 255
    return array


# words to picture, by every way of loading


def split(unet, clip, vae, kind, **more):
    """Model, text encoder and VAE from three files."""
    return picture(
        model=node("UNETLoader", unet_name=unet, weight_dtype="default"),
        clip=node("CLIPLoader", clip_name=clip, type=kind),
        vae=node("VAELoader", vae_name=vae),
        positive=node("CLIPTextEncode", text=PROMPT, clip=("clip", 0)),
        negative=node("CLIPTextEncode", text="", clip=("clip", 0)),
        decoded=node("VAEDecode", samples=("sampled", 0), vae=("vae", 0)),
        **more,
    )


FAMILIES = {
    "sd15": picture(model=node("CheckpointLoaderSimple", ckpt_name="standin_sd15.safetensors")),
    "illustrious, clip skip": picture(
        model=node("CheckpointLoaderSimple", ckpt_name="standin_illustrious.safetensors"),
        skipped=node("CLIPSetLastLayer", clip=("model", 1), stop_at_clip_layer=-2),
        positive=node("CLIPTextEncode", text=PROMPT, clip=("skipped", 0)),
    ),
    "noobai, v-prediction": picture(
        model=node("CheckpointLoaderSimple", ckpt_name="standin_noobai_vpred.safetensors"),
        shifted=node("ModelSamplingDiscrete", model=("model", 0), sampling="v_prediction", zsnr=True),
        sampled=sampler(model=("shifted", 0)),
    ),
    "netayume": picture(
        model=node("CheckpointLoaderSimple", ckpt_name="NetaYumev35_pretrained_all_in_one.safetensors"),
        shifted=node("ModelSamplingAuraFlow", model=("model", 0), shift=4.0),
        latent=node("EmptySD3LatentImage", width=WIDE, height=TALL, batch_size=1),
        words=node("StringConcatenate", string_a="1girl, silver hair, blue eyes,", string_b="school uniform, cherry blossoms, day", delimiter=" "),
        positive=node("CLIPTextEncode", text=("words", 0), clip=("model", 1)),
        sampled=sampler(model=("shifted", 0)),
    ),
    "anima": split("anima-base-v1.0.safetensors", "qwen_3_06b_base.safetensors", "qwen_image_vae.safetensors", "stable_diffusion"),
    "z-image": split(
        "z_image_turbo_bf16.safetensors", "qwen_3_4b.safetensors", "ae.safetensors", "lumina2",
        nothing=node("ConditioningZeroOut", conditioning=("positive", 0)), sampled=sampler(negative=("nothing", 0)),
    ),
    "qwen": split("qwen_image_2512_fp8_e4m3fn.safetensors", "qwen_2.5_vl_7b_fp8_scaled.safetensors", "qwen_image_vae.safetensors", "qwen_image"),
    "two text encoders": split("anima-base-v1.0.safetensors", "qwen_3_4b.safetensors", "ae.safetensors", "lumina2")
    | {"clip": node("DualCLIPLoader", clip_name1="qwen_3_4b.safetensors", clip_name2="qwen_3_06b_base.safetensors", type="flux")},
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
async def test_every_family_draws_the_words(client, family):
    assert np.array_equal(await pixels(client, FAMILIES[family]), await pixels(client, picture()))


async def test_primitives_feed_inputs(client):
    graph = picture(
        width=node("PrimitiveInt", value=64), cfg=node("PrimitiveFloat", value=3.5), a=node("PrimitiveString", value="1girl, red hair"),
        b=node("PrimitiveStringMultiline", value="smile"), words=node("StringConcatenate", string_a=("a", 0), string_b=("b", 0), delimiter=", "),
        positive=node("CLIPTextEncode", text=("words", 0), clip=("model", 1)), latent=node("EmptyLatentImage", width=("width", 0), height=64, batch_size=2),
    )  # fmt: skip
    graph["sampled"]["inputs"]["cfg"] = ["cfg", 0]
    found = await pixels(client, graph)
    assert found.shape == (2, 64, 64, 3)
    assert await shown(client, result=node("PrimitiveBoolean", value=True)) == ["True"]


async def test_preview_any_shows_texts_numbers_and_lists(client):
    assert await shown(client, result=node("PrimitiveString", value="hi\nyou")) == ["hi\nyou"]
    assert await shown(client, result=node("PrimitiveFloat", value=0.5)) == ["0.5"]
    assert await shown(client, result=node("ManualSigmas", sigmas="1, .5, 0.0")) == ["[1.0, 0.5, 0.0]"]
    (text,) = await shown(client, **picture(), result=node("EmptyLatentImage", width=64, height=64, batch_size=1))
    assert "width=64" in text


# LoRAs


def with_loras(*loras, both=True):
    nodes, last = {}, ("model", 0)
    for place, (name, strength) in enumerate(loras):
        kind = node("LoraLoader", clip=("model", 1), strength_clip=strength) if both else node("LoraLoaderModelOnly")
        kind["inputs"] |= {"model": list(last), "lora_name": f"{name}.safetensors", "strength_model": strength}
        nodes[f"lora{place}"], last = kind, (f"lora{place}", 0)
    return picture(**nodes, sampled=sampler(model=last))


async def test_a_lora_changes_the_look_slightly_and_by_its_strength(client):
    plain, nothing, half, whole = [
        await pixels(client, graph) for graph in (picture(), *(with_loras(("ink_lines_xl", strength)) for strength in (0.0, 0.5, 1.0)))
    ]
    assert np.array_equal(plain, nothing)
    assert 1 < distance(plain, half) < distance(plain, whole) < 30


async def test_each_lora_has_a_look_of_its_own_and_they_add_up(client):
    ink, mika, both = [await pixels(client, with_loras(*loras)) for loras in (
        [("ink_lines_xl", 1.0)], [("mika_v3", 1.0)], [("ink_lines_xl", 1.0), ("mika_v3", 1.0)])]  # fmt: skip
    assert distance(ink, mika) > 1
    assert distance(both, ink) > 1
    assert distance(both, mika) > 1
    assert np.array_equal(mika, await pixels(client, with_loras(("mika_v3", 1.0), both=False)))


async def test_a_lora_of_strength_zero_need_not_even_be_there(client):
    graph = with_loras(("mika_v3", 0.0))
    async with running(client.engine.home / "other", models="checkpoints/standin_xl.safetensors,loras/mika_v3.safetensors", load_s=0) as other:
        await pixels(other, graph)
        assert ("loras", "mika_v3.safetensors") not in other.engine.worker._loaded
        await pixels(other, with_loras(("mika_v3", 0.1)))
        assert ("loras", "mika_v3.safetensors") in other.engine.worker._loaded


# uploaded pictures


async def test_encoding_and_decoding_gives_the_picture_back(client):
    name = await uploaded(client, painting())
    tiles = {"tile_size": 512, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    graph = changed(name, decoded=node("VAEDecodeTiled", samples=("latent", 0), vae=("model", 2), **tiles))
    assert np.array_equal((await pixels(client, graph))[0], painting())
    odd = await uploaded(client, np.pad(painting(), ((3, 2), (0, 0), (0, 0))), "odd.png")
    assert np.array_equal((await pixels(client, changed(odd, denoise=0.0)))[0], np.pad(painting(), ((3, 2), (0, 0), (0, 0)))[2 : 2 + TALL])


@pytest.mark.parametrize("fields", [{}, {"subfolder": "jobs/a"}, {"type": "temp"}, {"type": "output"}, {"subfolder": "x", "type": "output"}])
async def test_pictures_are_found_where_they_were_uploaded(client, fields):
    name = await uploaded(client, painting(), **fields)
    graph = {"loaded": node("LoadImage", image=name), "saved": node("PreviewImage", images=("loaded", 0))}
    assert np.array_equal((await pixels(client, graph))[0], painting())


@pytest.mark.parametrize("name", ["nope.png", "nope.png [output]", "../../engine.json", "/etc/hostname", "jobs", ""])
@pytest.mark.parametrize("kind", ["LoadImage", "LoadImageMask"])
async def test_absent_pictures_are_refused_in_the_recorded_words(client, kind, name):
    more = {"channel": "red"} if kind == "LoadImageMask" else {}
    graph = {"1": node(kind, image=name, **more), "2": node("PreviewAny", source=("1", 0))}
    (client.engine.home / "input" / "jobs").mkdir()
    status, answer = await client.call("POST", "/prompt", json={"prompt": graph})
    fault = {"type": "custom_validation_failed", "message": "Custom validation failed for node", "details": f"image - Invalid image file: {name}"}
    assert (status, answer["node_errors"]["1"]["errors"]) == (400, [fault | {"extra_info": {"input_name": "image"}}])


async def test_lists_of_pictures_are_what_is_there(client):
    await uploaded(client, painting(), "b.png")
    await uploaded(client, painting(), "a.png", subfolder="deep")
    (client.engine.home / "input" / "notes.txt").write_text("no picture")
    (client.engine.home / "input" / "c.webp").write_text("no picture either, but by its name")
    info = await client.get("/object_info")
    assert info["LoadImage"]["input"]["required"]["image"] == [["b.png", "c.webp"], {"image_upload": True}]
    assert info["LoadImageMask"]["input"]["required"]["image"][0] == ["b.png", "c.webp", "notes.txt"]


async def test_a_file_that_is_no_picture_fails_as_recorded(client):
    (client.engine.home / "input" / "not_image.txt").write_text("no picture")
    entry = await client.run({"prompt": changed("not_image.txt", denoise=0.6)})
    kind, error = entry["status"]["messages"][-1]
    assert (kind, error["node_id"], error["exception_type"]) == ("execution_error", "loaded", "PIL.UnidentifiedImageError")
    assert error["exception_message"].startswith("cannot identify image file '")
    assert error["current_inputs"] == {"image": ["not_image.txt"]}


async def test_another_picture_under_the_same_name_is_another_node(client):
    graph = {"loaded": node("LoadImage", image=await uploaded(client, painting())), "saved": node("PreviewImage", images=("loaded", 0))}
    await made(client, graph)
    assert (await client.run({"prompt": graph}))["status"]["messages"][1][1]["nodes"] == ["loaded", "saved"]
    await uploaded(client, painting()[::-1], overwrite="true")
    assert np.array_equal((await pixels(client, graph))[0], painting()[::-1])


async def test_transparency_becomes_a_mask(client):
    array = np.dstack([painting(), np.full((TALL, WIDE), 255, dtype=np.uint8)])
    array[:, :40, 3] = 0
    name = await uploaded(client, array)
    for mask in (node("LoadImageMask", image=name, channel="alpha"), node("LoadImage", image=name)):
        slot = 0 if mask["class_type"] == "LoadImageMask" else 1
        graph = {"mask": mask, "grey": node("MaskToImage", mask=("mask", slot)), "saved": node("PreviewImage", images=("grey", 0))}
        (grey,) = await pixels(client, graph)
        assert grey[:, :40].min() == 255
        assert grey[:, 40:].max() == 0
    red = node("LoadImageMask", image=name, channel="red")
    red = {"mask": red, "grey": node("MaskToImage", mask=("mask", 0)), "saved": node("PreviewImage", images=("grey", 0))}
    assert np.array_equal((await pixels(client, red))[0, ..., 0], painting()[..., 0])


# picture to picture


async def test_the_source_shows_through_the_less_the_more_noise_there_is(client):
    name = await uploaded(client, painting())
    found = {denoise: (await pixels(client, changed(name, denoise=denoise)))[0] for denoise in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)}
    (new,) = await pixels(client, picture(OTHER, sampled=sampler(11)))
    away = [distance(array, painting()) for array in found.values()]
    assert away[0] == 0
    assert away == sorted(away)
    assert away[1] < 0.3 * away[-1]
    near = [distance(array, new) for array in found.values()]
    assert near == sorted(near, reverse=True)
    assert np.array_equal(found[1.0], new)


async def test_no_noise_at_all_takes_no_step(client):
    ear = await client.listen("A")
    await ear.end_of(await client.submit({"prompt": changed(await uploaded(client, painting()), denoise=0.0), "client_id": "A"}))
    assert [frame for frame in ear.frames if frame["type"] == "progress"] == []


def masked():
    """A picture with a hole in the middle."""
    alpha = np.full((TALL, WIDE), 255, dtype=np.uint8)
    alpha[60:120, 30:100] = 0
    return np.dstack([painting(), alpha]), alpha == 0


@pytest.mark.parametrize("denoise", [0.5, 1.0])
async def test_inpainting_leaves_every_pixel_outside_the_mask(client, denoise):
    array, hole = masked()
    graph = changed(await uploaded(client, array), denoise=denoise)
    graph |= {"encoded": graph["latent"], "latent": node("SetLatentNoiseMask", samples=("encoded", 0), mask=("loaded", 1))}
    (found,) = await pixels(client, graph)
    assert np.array_equal(found[~hole], painting()[~hole])
    assert distance(found[hole], painting()[hole]) > 10
    if denoise == 1:
        (new,) = await pixels(client, picture(OTHER, sampled=sampler(11)))
        assert np.array_equal(found[hole], new[hole])


async def test_inpainting_encoder_reaches_a_few_pixels_further(client):
    array, hole = masked()
    name = await uploaded(client, array)

    async def touched(grow):
        latent = node("VAEEncodeForInpaint", pixels=("loaded", 0), vae=("model", 2), mask=("loaded", 1), grow_mask_by=grow)
        (found,) = await pixels(client, changed(name) | {"latent": latent})
        return (found != painting()).any(axis=2)

    near, far = await touched(0), await touched(9)
    assert not near[~hole].any()
    assert far[56:124, 26:104].mean() > 0.9
    assert not far[:50].any()
    assert not far[130:].any()


# second passes


async def test_second_pass_draws_the_same_picture_larger(client):
    (small,) = await pixels(client, picture())
    graph = picture(
        larger=node("LatentUpscaleBy", samples=("sampled", 0), upscale_method="bislerp", scale_by=1.5),
        again=sampler(99, 3, 0.5, latent=("larger", 0)),
        decoded=node("VAEDecode", samples=("again", 0), vae=("model", 2)),
    )
    (large,) = await pixels(client, graph)
    assert large.shape == (288, 192, 3)
    shrunk = np.asarray(Image.fromarray(large).resize((WIDE, TALL), Image.Resampling.BOX))
    assert 0 < distance(shrunk, small) < 8
    blown_up = np.asarray(Image.fromarray(small).resize((192, 288), Image.Resampling.BICUBIC))
    sharpness = [np.abs(np.diff(array.astype(int), axis=1)).max(axis=2).mean() for array in (large, blown_up)]
    assert sharpness[0] > sharpness[1] * 1.1


async def test_latents_can_be_brought_to_any_size(client):
    name = await uploaded(client, painting())
    for width, height, crop, size in ((256, 0, "disabled", (256, 384)), (100, 100, "center", (96, 96)), (0, 0, "center", (WIDE, TALL))):
        larger = node("LatentUpscale", samples=("latent", 0), upscale_method="area", width=width, height=height, crop=crop)
        (found,) = await pixels(client, changed(name, larger=larger, decoded=node("VAEDecode", samples=("larger", 0), vae=("model", 2))))
        assert found.shape[1::-1] == size
        assert (found[0, 0].tolist(), found[-1, -1].tolist()) == ([200, 40, 30], [20, 60, 190])


async def test_second_pass_with_all_the_noise_draws_anew_and_with_much_follows_its_words(client):
    def twice(denoise):
        return picture(
            other=node("CLIPTextEncode", text=OTHER, clip=("model", 1)),
            again=sampler(11, 2, denoise, positive=("other", 0), latent=("sampled", 0)),
            decoded=node("VAEDecode", samples=("again", 0), vae=("model", 2)),
        )

    first, new = await pixels(client, picture()), await pixels(client, picture(OTHER, sampled=sampler(11)))
    assert np.array_equal(await pixels(client, twice(1.0)), new)
    assert distance(await pixels(client, twice(0.3)), first) < 5 < distance(await pixels(client, twice(0.7)), first)


def two_samplers(end=2, leftover="enable", **more):
    how = {"noise_seed": 7, "steps": 5, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "positive": ("positive", 0), "negative": ("negative", 0)}
    first = {"add_noise": "enable", "start_at_step": 0, "end_at_step": end, "return_with_leftover_noise": leftover, "latent_image": ("latent", 0)}
    second = {"add_noise": "disable", "start_at_step": end, "end_at_step": 10000, "return_with_leftover_noise": "disable", "latent_image": ("first", 0)}
    return picture(
        first=node("KSamplerAdvanced", model=("model", 0), **how, **first),
        sampled=node("KSamplerAdvanced", model=("model", 0), **how | {"noise_seed": 0}, **second),
        **more,
    )


async def test_a_second_sampler_goes_on_where_the_first_stopped(client):
    ear = await client.listen("A")
    prompt_id = await client.submit({"prompt": two_samplers(), "client_id": "A"})
    await ear.end_of(prompt_id)
    frames = ear.taken()
    steps = [(frame["data"]["node"], frame["data"]["value"], frame["data"]["max"]) for frame in frames if frame["type"] == "progress"]
    assert steps == [("first", 1, 2), ("first", 2, 2), ("sampled", 1, 3), ("sampled", 2, 3), ("sampled", 3, 3)]
    (plain,) = await pixels(client, picture())
    (both,) = await pixels(client, two_samplers())
    assert np.array_equal(both, plain)
    previews = [np.asarray(Image.open(io.BytesIO(frame["data"]["image"]))) for frame in frames if frame["type"] == "binary"]
    away = [distance(preview, plain) for preview in previews]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 5 < 20 < away[0]


async def test_leftover_noise_is_seen_unless_it_was_not_to_be_left(client):
    plain = await pixels(client, picture())
    decoded = node("VAEDecode", samples=("first", 0), vae=("model", 2))
    noisy, clean = [await pixels(client, two_samplers(leftover=leftover, decoded=decoded)) for leftover in ("enable", "disable")]
    assert distance(noisy, plain) > 15
    assert np.array_equal(clean, plain)
    nothing = await pixels(client, two_samplers(end=0, decoded=decoded))
    assert (nothing == 127).all()


# samplers made of parts


def custom(sigmas, *, guider=None, sampled=None, **more):
    guider = guider or node("CFGGuider", model=("model", 0), positive=("positive", 0), negative=("negative", 0), cfg=3.0)
    advanced = stage("noise", "guider", "sigmas", "latent")
    return picture(
        noise=node("RandomNoise", noise_seed=7), sampler=node("KSamplerSelect", sampler_name="euler"), guider=guider, sigmas=sigmas,
        sampled=sampled or advanced, **more,
    )  # fmt: skip


SIGMAS = {
    "basic": (node("BasicScheduler", model=("model", 0), scheduler="simple", steps=6, denoise=1.0), 6),
    "ltx": (node("LTXVScheduler", steps=5, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1), 5),
    "by hand": (node("ManualSigmas", sigmas="1.0, 0.9, 0.5, 0.0"), 3),
    "of another scale": (node("ManualSigmas", sigmas="14.6, 3.1, 0.7, 0.0"), 3),
}


@pytest.mark.parametrize("kind", SIGMAS)
async def test_as_many_steps_as_there_are_gaps_between_noise_levels(client, kind):
    sigmas, count = SIGMAS[kind]
    ear = await client.listen("A")
    await ear.end_of(await client.submit({"prompt": custom(sigmas), "client_id": "A"}))
    steps = [(frame["data"]["value"], frame["data"]["max"]) for frame in ear.frames if frame["type"] == "progress"]
    assert steps == [(value, count) for value in range(1, count + 1)]
    assert np.array_equal(await pixels(client, custom(sigmas)), await pixels(client, picture()))


async def test_parts_can_be_put_together_otherwise(client):
    plain = await pixels(client, picture())
    simple = custom(SIGMAS["basic"][0], guider=node("BasicGuider", model=("model", 0), conditioning=("positive", 0)))
    simple["sampler"] = node("SamplerEulerAncestral", eta=1.0, s_noise=1.0)
    assert np.array_equal(await pixels(client, simple), plain)
    how = {"add_noise": True, "noise_seed": 7, "cfg": 3.0, "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0)}
    one = node("SamplerCustom", model=("model", 0), sampler=("sampler", 0), sigmas=("sigmas", 0), **how)
    assert np.array_equal(await pixels(client, custom(SIGMAS["basic"][0], sampled=one)), plain)


async def test_noise_levels_that_end_early_leave_noise_but_in_the_second_output(client):
    plain, levels = await pixels(client, picture()), node("ManualSigmas", sigmas="1, 0.4")
    assert distance(await pixels(client, custom(levels)), plain) > 5
    clean = custom(levels, decoded=node("VAEDecode", samples=("sampled", 1), vae=("model", 2)))
    assert np.array_equal(await pixels(client, clean), plain)
    untouched = custom(node("BasicScheduler", model=("model", 0), scheduler="simple", steps=6, denoise=0.0))
    assert (await pixels(client, untouched) == 127).all()


async def test_scheduler_keeps_the_last_steps_of_less_noise(client):
    nodes = picture(result=node("BasicScheduler", model=("model", 0), scheduler="simple", steps=3, denoise=0.5))
    assert json.loads((await shown(client, **nodes))[0]) == pytest.approx([1 / 2, 1 / 3, 1 / 6, 0])
    nodes["result"] = node("LTXVScheduler", steps=4, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1, latent=("latent", 0))
    levels = json.loads((await shown(client, **nodes))[0])
    assert (len(levels), levels[0], round(levels[-2], 6), levels[-1]) == (5, 1.0, 0.1, 0.0)
    assert levels == sorted(levels, reverse=True)


# pictures


@pytest.mark.parametrize(("model", "factor"), [("2x_standin.safetensors", 2), ("RealESRGAN_x4plus_anime_6B.pth", 4)])
async def test_upscale_model_enlarges_by_the_factor_in_its_name(client, model, factor):
    graph = picture(
        latent=node("EmptyLatentImage", width=WIDE, height=TALL, batch_size=2),
        upscaler=node("UpscaleModelLoader", model_name=model),
        larger=node("ImageUpscaleWithModel", upscale_model=("upscaler", 0), image=("decoded", 0)),
        saved=node("SaveImage", images=("larger", 0), filename_prefix="u"),
    )
    ear = await client.listen("A")
    await ear.end_of(await client.submit({"prompt": graph, "client_id": "A"}))
    steps = [(frame["data"]["node"], frame["data"]["value"]) for frame in ear.taken() if frame["type"] == "progress"]
    assert steps[-2:] == [("larger", 1), ("larger", 2)]
    found = await pixels(client, graph)
    assert found.shape == (2, TALL * factor, WIDE * factor, 3)
    (plain,) = await pixels(client, picture())
    assert distance(np.asarray(Image.fromarray(found[0]).resize((WIDE, TALL), Image.Resampling.BOX)), plain) < 3


async def test_pictures_are_scaled_blurred_and_measured(client):
    name = await uploaded(client, painting())
    load = {"loaded": node("LoadImage", image=name)}

    async def of(kind, **inputs):
        return (await pixels(client, load | {"new": node(kind, image=("loaded", 0), **inputs), "saved": node("PreviewImage", images=("new", 0))}))[0]

    assert (await of("ImageScaleBy", upscale_method="lanczos", scale_by=0.5)).shape == (TALL // 2, WIDE // 2, 3)
    height, width, _ = (await of("ImageScaleToTotalPixels", upscale_method="area", megapixels=0.1)).shape
    assert height * width == pytest.approx(0.1 * 2**20, rel=0.02)
    soft = await of("ImageBlur", blur_radius=5, sigma=1.0)
    assert soft.shape == painting().shape
    assert np.abs(np.diff(soft.astype(int), axis=0)).max() < np.abs(np.diff(painting().astype(int), axis=0)).max() / 3
    assert soft[10, 10].tolist() == [200, 40, 30]
    ear = await client.listen("A")
    graph = load | {"size": node("GetImageSize", image=("loaded", 0))}
    graph |= {name: node("PreviewAny", source=("size", slot)) for slot, name in enumerate(("width", "height", "count"))}
    prompt_id = await client.submit({"prompt": graph, "client_id": "A"})
    await ear.end_of(prompt_id)
    outputs = (await client.done(prompt_id))["outputs"]
    assert [outputs[name]["text"] for name in ("width", "height", "count")] == [[str(WIDE)], [str(TALL)], ["1"]]
    (told,) = [frame["data"] for frame in ear.frames if frame["type"] == "binary"]
    assert told == {"event": 3, "node": "size", "text": f"width: {WIDE}, height: {TALL}\n batch size: 1"}


async def test_one_picture_is_laid_on_another(client):
    graph = {
        "below": node("EmptyImage", width=100, height=80, batch_size=1, color=0x0000FF),
        "above": node("EmptyImage", width=40, height=40, batch_size=1, color=0xFF0000),
        "mask": node("ImageToMask", image=("above", 0), channel="red"),
        "laid": node("ImageCompositeMasked", destination=("below", 0), source=("above", 0), x=70, y=60, resize_source=False, mask=("mask", 0)),
        "saved": node("PreviewImage", images=("laid", 0)),
    }
    (found,) = await pixels(client, graph)
    assert (found[60:, 70:] == [255, 0, 0]).all()
    assert (found[:60] == [0, 0, 255]).all()
    graph["mask"]["inputs"]["channel"] = "green"
    assert (await pixels(client, graph) == [0, 0, 255]).all()
    graph["laid"]["inputs"] |= {"x": 0, "y": 0, "resize_source": True}
    del graph["laid"]["inputs"]["mask"]
    assert (await pixels(client, graph) == [255, 0, 0]).all()


RESIZED = {
    "scale dimensions": ({"width": 64, "height": 64, "crop": "center"}, (64, 64)),
    "scale by multiplier": ({"multiplier": 0.5}, (64, 96)),
    "scale longer dimension": ({"longer_size": 96}, (64, 96)),
    "scale shorter dimension": ({"shorter_size": 64}, (64, 96)),
    "scale width": ({"width": 64}, (64, 96)),
    "scale height": ({"height": 96}, (64, 96)),
    "scale total pixels": ({"megapixels": 0.01, "multiple": 8}, (80, 128)),
    "match size": ({"match": ("other", 0), "crop": "disabled"}, (50, 30)),
    "scale to multiple": ({"multiple": 50}, (100, 150)),
}


@pytest.mark.parametrize("how", RESIZED)
@pytest.mark.parametrize("slot", [0, 1], ids=["picture", "mask"])
async def test_pictures_and_masks_are_resized_in_nine_ways(client, how, slot):
    values, size = RESIZED[how]
    array, _ = masked()
    graph = {
        "loaded": node("LoadImage", image=await uploaded(client, array)),
        "other": node("EmptyImage", width=50, height=30, batch_size=1, color=0),
        "new": node("ResizeImageMaskNode", input=("loaded", slot), resize_type=how, scale_method="area", **{f"resize_type.{k}": v for k, v in values.items()}),
        "grey": node("MaskToImage", mask=("new", 0)),
    }
    graph["saved"] = node("PreviewImage", images=("grey" if slot else "new", 0))
    (found,) = await pixels(client, graph if slot else {key: value for key, value in graph.items() if key != "grey"})
    assert found.shape[1::-1] == size


async def test_what_a_chosen_way_needs_is_asked_for(client):
    graph = {"1": node("EmptyImage", width=8, height=8, batch_size=1, color=0), "2": node("PreviewImage", images=("3", 0))}
    graph["3"] = node("ResizeImageMaskNode", input=("1", 0), resize_type="scale dimensions", resize_type__width=9, resize_type__height=-1, scale_method="area")
    status, answer = await client.call("POST", "/prompt", json={"prompt": graph})
    faults = [(fault["type"], fault["extra_info"]["input_name"]) for fault in answer["node_errors"]["3"]["errors"]]
    assert (status, faults) == (400, [("value_smaller_than_min", "resize_type.height"), ("required_input_missing", "resize_type.crop")])


# switches and sums


async def test_a_switch_runs_the_branch_it_needs_and_no_other(client):
    graph = {
        "switch": node("PrimitiveBoolean", value=False),
        "red": node("EmptyImage", width=8, height=8, batch_size=1, color=0xFF0000),
        "blue": node("EmptyImage", width=8, height=8, batch_size=1, color=0x0000FF),
        "turned": node("ImageInvert", image=("blue", 0)),
        "chosen": node("ComfySwitchNode", switch=("switch", 0), on_true=("red", 0), on_false=("turned", 0)),
        "saved": node("PreviewImage", images=("chosen", 0)),
    }
    ear = await client.listen("A")
    prompt_id = await client.submit({"prompt": graph, "client_id": "A"})
    await ear.end_of(prompt_id)
    ran = [frame["data"]["node"] for frame in ear.frames if frame["type"] == "executing"]
    assert ran == ["switch", "chosen", "blue", "turned", "chosen", "saved", None]
    assert (await pixels(client, graph) == [255, 255, 0]).all()
    graph["switch"]["inputs"]["value"] = True
    assert (await pixels(client, graph) == [255, 0, 0]).all()
    assert await shown(client, result=node("ComfySwitchNode", switch=True, on_true=5)) == ["5"]


async def test_sums_give_a_float_a_whole_number_and_a_truth(client):
    half = node("ComfyMathExpression", expression="floor(a * b / 2) + 1", values__a=("a", 0), values__b=25)
    nodes = {"a": node("PrimitiveInt", value=5), "result": half}
    assert await shown(client, **nodes) == ["63.0"]
    entry = await client.run({"prompt": nodes | {"whole": node("PreviewAny", source=("result", 1)), "truth": node("PreviewAny", source=("result", 2))}})
    assert [entry["outputs"][name]["text"] for name in ("whole", "truth")] == [["63"], ["True"]]
    wrong = {"result": node("ComfyMathExpression", expression="().__class__"), "shown": node("PreviewAny", source=("result", 0))}
    assert (await client.run({"prompt": wrong}))["status"]["messages"][-1][1]["exception_type"] == "ValueError"


async def test_a_resolution_is_chosen_by_its_shape(client):
    for ratio, size in (("1:1 (Square)", ("1024", "1024")), ("9:16 (Portrait Widescreen)", ("768", "1368"))):
        nodes = {"result": node("ResolutionSelector", aspect_ratio=ratio, megapixels=1.0, multiple=8)}
        entry = await client.run({"prompt": nodes | {str(slot): node("PreviewAny", source=("result", slot)) for slot in (0, 1)}})
        assert (entry["outputs"]["0"]["text"][0], entry["outputs"]["1"]["text"][0]) == size


# clips


def wan(first, *, frames=9, seed=7, **more):
    """A graph of Wan's two models, from a node that gives words and latent to PNGs of every frame and a clip."""
    how = {"steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "positive": ("first", 0), "negative": ("first", 1)}
    high = {"add_noise": "enable", "noise_seed": seed, "start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable"}
    low = {"add_noise": "disable", "noise_seed": 0, "start_at_step": 2, "end_at_step": 4, "return_with_leftover_noise": "disable"}
    first["inputs"] |= {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["vae", 0], "length": frames, "batch_size": 1}
    unets = {name: node("UNETLoader", unet_name=f"wan2.2_i2v_{name}_noise_14B_fp8_scaled.safetensors", weight_dtype="default") for name in ("high", "low")}
    lora = node("LoraLoaderModelOnly", model=("high", 0), lora_name="wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors", strength_model=1.0)
    return unets | {
        "lora": lora, "shifted": node("ModelSamplingSD3", model=("lora", 0), shift=5.0),
        "clip": node("CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan"),
        "vae": node("VAELoader", vae_name="wan_2.1_vae.safetensors"),
        "positive": node("CLIPTextEncode", text="a girl in the wind", clip=("clip", 0)), "negative": node("CLIPTextEncode", text="", clip=("clip", 0)),
        "first": first, "noisy": node("KSamplerAdvanced", model=("shifted", 0), latent_image=("first", 2), **how, **high),
        "sampled": node("KSamplerAdvanced", model=("low", 0), latent_image=("noisy", 0), **how, **low),
        "decoded": node("VAEDecode", samples=("sampled", 0), vae=("vae", 0)), "saved": node("SaveImage", images=("decoded", 0), filename_prefix="f"),
        "clip_of_it": node("CreateVideo", images=("decoded", 0), fps=16.0),
        "video": node("SaveVideo", video=("clip_of_it", 0), filename_prefix="v", format="auto", codec="auto"),
    } | more  # fmt: skip


def moves(frames):
    return [distance(one, other) for one, other in pairwise(frames)]


async def test_a_clip_starts_with_its_picture_and_moves_on_from_it(client):
    start = await uploaded(client, painting()[:80])
    load = {"start": node("LoadImage", image=start)}
    size = {"width": WIDE, "height": 80}
    for first in (node("WanImageToVideo", start_image=("start", 0), **size), node("WanFirstLastFrameToVideo", start_image=("start", 0), **size)):
        frames = await pixels(client, wan(first, frames=17, **load))
        assert len(frames) == 17
        assert np.array_equal(frames[0], painting()[:80])
        assert 0 < min(moves(frames)) < max(moves(frames)) < 12
        assert distance(frames[0], frames[-1]) > distance(frames[0], frames[1])


async def test_a_clip_of_the_small_model_starts_with_its_picture_at_its_own_size(client):
    start = await uploaded(client, painting())
    graph = wan(node("WanImageToVideo", width=64, height=64), start=node("LoadImage", image=start))
    del graph["first"], graph["noisy"]
    graph["vae"]["inputs"]["vae_name"] = "wan2.2_vae.safetensors"
    graph["latent"] = node("Wan22ImageToVideoLatent", vae=("vae", 0), width=96, height=64, length=10, batch_size=1, start_image=("start", 0))
    graph["sampled"] = sampler(model=("shifted", 0))
    frames = await pixels(client, graph)
    assert frames.shape == (9, 64, 96, 3)
    box = (0, (TALL - WIDE * 64 / 96) / 2, WIDE, (TALL + WIDE * 64 / 96) / 2)
    assert distance(frames[0], np.asarray(Image.fromarray(painting()).resize((96, 64), Image.Resampling.BICUBIC, box))) < 1


async def test_a_clip_goes_from_its_first_picture_to_its_last(client):
    load = {"start": node("LoadImage", image=await uploaded(client, painting()[:80], "a.png"))}
    load["end"] = node("LoadImage", image=await uploaded(client, 255 - painting()[-80:], "b.png"))
    first = node("WanFirstLastFrameToVideo", start_image=("start", 0), end_image=("end", 0), width=WIDE, height=80)
    frames = await pixels(client, wan(first, frames=17, **load))
    assert np.array_equal(frames[0], painting()[:80])
    assert np.array_equal(frames[-1], 255 - painting()[-80:])
    away = [distance(frame, frames[-1]) for frame in frames]
    assert away == sorted(away, reverse=True)
    only = node("WanFirstLastFrameToVideo", end_image=("end", 0), width=WIDE, height=80)
    frames = await pixels(client, wan(only, frames=9, **load))
    assert np.array_equal(frames[-1], 255 - painting()[-80:])
    assert distance(frames[0], frames[-1]) > 20


async def test_without_a_picture_a_clip_is_drawn(client):
    frames = await pixels(client, wan(node("WanImageToVideo", width=WIDE, height=80)))
    assert (frames[0] != 127).any()
    assert 0 < min(moves(frames)) < max(moves(frames)) < 8


async def test_a_clip_holds_the_frames_and_the_notes(client):
    graph = wan(node("WanImageToVideo", width=64, height=64))
    entry = await client.run({"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": {"nodes": []}}}})
    (file,) = entry["outputs"]["video"]["images"]
    with av.open(str(client.engine.home / "output" / file["filename"])) as clip:
        assert (clip.streams.video[0].frames, clip.streams.video[0].average_rate) == (9, 16)
        assert json.loads(clip.metadata["workflow"]) == {"nodes": []}
        assert json.loads(clip.metadata["prompt"]) == graph
    with Image.open(client.engine.home / "output" / entry["outputs"]["saved"]["images"][0]["filename"]) as first:
        assert json.loads(first.text["workflow"]) == {"nodes": []}


async def test_several_frames_are_encoded_as_one_clip(client):
    source = await pixels(client, wan(node("WanImageToVideo", width=64, height=64)))
    data = io.BytesIO()
    stills = [Image.fromarray(frame) for frame in source]
    stills[0].save(data, "WEBP", save_all=True, append_images=stills[1:], lossless=True)
    (client.engine.home / "input" / "moving.webp").write_bytes(data.getvalue())
    graph = wan(node("WanImageToVideo", width=64, height=64), start=node("LoadImage", image="moving.webp"))
    del graph["first"], graph["noisy"]
    graph["latent"] = node("VAEEncode", pixels=("start", 0), vae=("vae", 0))
    graph["sampled"] = sampler(model=("low", 0), denoise=0.0)
    assert np.array_equal(await pixels(client, graph), source)


# LTX


CHECKPOINT = "ltx-2.3-22b-dev-fp8.safetensors"
LTX_LORA = "ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors"


def stage(noise, guider, sigmas, latent):
    parts = {"noise": (noise, 0), "guider": (guider, 0), "sampler": ("sampler", 0), "sigmas": (sigmas, 0), "latent_image": (latent, 0)}
    return node("SamplerCustomAdvanced", **parts)


def ltx(latent, *, words=PROMPT, **more):
    """LTX's two stages: half the size with sound, then twice as large; `latent` says what leads the first."""
    return {
        "frames": node("ComfyMathExpression", expression="a * b + 1", values__a=2, values__b=8),
        "rate": node("ComfyMathExpression", expression="a", values__a=8),
        "base": node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT), "sound_vae": node("LTXVAudioVAELoader", ckpt_name=CHECKPOINT),
        "clip": node("LTXAVTextEncoderLoader", text_encoder="gemma_3_12B_it_fp4_mixed.safetensors", ckpt_name=CHECKPOINT, device="default"),
        "model": node("LoraLoaderModelOnly", model=("base", 0), lora_name=LTX_LORA, strength_model=0.5),
        "written": node("TextGenerateLTX2Prompt", clip=("clip", 0), prompt=words, max_length=99, sampling_mode="off"),
        "words": node("ComfySwitchNode", switch=True, on_true=("written", 0)),
        "for": node("CLIPTextEncode", text=("words", 0), clip=("clip", 0)), "against": node("CLIPTextEncode", text="", clip=("clip", 0)),
        "rated": node("LTXVConditioning", positive=("for", 0), negative=("against", 0), frame_rate=("rate", 0)),
        "empty": node("EmptyLTXVLatentVideo", width=96, height=64, length=("frames", 1), batch_size=1),
        "silence": node("LTXVEmptyLatentAudio", frames_number=("frames", 1), frame_rate=("rate", 1), batch_size=1, audio_vae=("sound_vae", 0)),
        "latent": latent, "joined": node("LTXVConcatAVLatent", video_latent=("latent", 0), audio_latent=("silence", 0)),
        "noise": node("RandomNoise", noise_seed=7), "sampler": node("KSamplerSelect", sampler_name="euler"),
        "guider": node("CFGGuider", model=("model", 0), positive=("rated", 0), negative=("rated", 1), cfg=1.0),
        "sigmas": node("ManualSigmas", sigmas="1.0, 0.99375, 0.9, 0.421875, 0.0"),
        "stage1": stage("noise", "guider", "sigmas", "joined"),
        "parted1": node("LTXVSeparateAVLatent", av_latent=("stage1", 0)),
        "cropped": node("LTXVCropGuides", positive=("rated", 0), negative=("rated", 1), latent=("parted1", 0)),
        "upscaler": node("LatentUpscaleModelLoader", model_name="ltx-2.3-spatial-upscaler-x2-1.1.safetensors"),
        "larger": node("LTXVLatentUpsampler", samples=("cropped", 2), upscale_model=("upscaler", 0), vae=("base", 2)),
        "joined2": node("LTXVConcatAVLatent", video_latent=("larger", 0), audio_latent=("parted1", 1)),
        "noise2": node("RandomNoise", noise_seed=42), "sigmas2": node("ManualSigmas", sigmas="0.85, 0.725, 0.4219, 0.0"),
        "guider2": node("CFGGuider", model=("model", 0), positive=("cropped", 0), negative=("cropped", 1), cfg=1.0),
        "stage2": stage("noise2", "guider2", "sigmas2", "joined2"),
        "parted2": node("LTXVSeparateAVLatent", av_latent=("stage2", 0)),
        "decoded": node("VAEDecodeTiled", samples=("parted2", 0), vae=("base", 2), tile_size=512, overlap=64, temporal_size=64, temporal_overlap=8),
        "sound": node("LTXVAudioVAEDecode", samples=("parted2", 1), audio_vae=("sound_vae", 0)),
        "saved": node("SaveImage", images=("decoded", 0), filename_prefix="l"),
        "clip_of_it": node("CreateVideo", images=("decoded", 0), fps=("rate", 0), audio=("sound", 0)),
        "video": node("SaveVideo", video=("clip_of_it", 0), filename_prefix="l", format="auto", codec="auto"),
    } | more  # fmt: skip


async def test_ltx_goes_from_words_to_a_clip_in_two_sizes(client):
    graph = ltx(node("LTXVImgToVideoInplace", vae=("base", 2), image=("black", 0), latent=("empty", 0), strength=0.7, bypass=True))
    graph["black"] = node("EmptyImage", width=64, height=64, batch_size=1, color=0)
    ear = await client.listen("A")
    prompt_id = await client.submit({"prompt": graph, "client_id": "A"})
    await ear.end_of(prompt_id)
    steps = [(frame["data"]["node"], frame["data"]["max"]) for frame in ear.frames if frame["type"] == "progress"]
    assert steps == [("stage1", 4)] * 4 + [("stage2", 3)] * 3
    (file,) = (await client.done(prompt_id))["outputs"]["video"]["images"]
    with av.open(str(client.engine.home / "output" / file["filename"])) as clip:
        stream = clip.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (192, 128, 17, 8)
    frames = await pixels(client, graph)
    assert frames.shape == (17, 128, 192, 3)
    assert 0 < min(moves(frames)) < max(moves(frames)) < 8


async def test_ltx_starts_with_a_picture(client):
    picture_of = {"loaded": node("LoadImage", image=await uploaded(client, painting()[:128]))}
    picture_of["sized"] = node(
        "ResizeImageMaskNode", input=("loaded", 0), resize_type="scale dimensions", resize_type__width=192, resize_type__height=128, resize_type__crop="center",
        scale_method="lanczos",
    )  # fmt: skip
    picture_of["image"] = node("LTXVPreprocess", image=("sized", 0), img_compression=18)
    graph = ltx(node("LTXVImgToVideoInplace", vae=("base", 2), image=("image", 0), latent=("empty", 0), strength=0.7, bypass=False), **picture_of)
    frames = await pixels(client, graph)
    sized = await pixels(client, picture_of | {"saved": node("PreviewImage", images=("sized", 0))})
    assert np.array_equal(frames[0], sized[0])
    assert min(moves(frames)) > 0
    size = {"width": 96, "height": 64, "length": 17, "batch_size": 1, "strength": 1.0}
    led = node("LTXVImgToVideo", positive=("rated", 0), negative=("rated", 1), vae=("base", 2), image=("image", 0), **size)
    graph = ltx(led, **picture_of, joined=node("LTXVConcatAVLatent", video_latent=("latent", 2), audio_latent=("silence", 0)))
    assert np.array_equal((await pixels(client, graph))[0], sized[0])


async def test_ltx_goes_from_one_picture_to_another(client):
    load = {"a": node("LoadImage", image=await uploaded(client, painting()[:64, :96], "a.png"))}
    load["b"] = node("LoadImage", image=await uploaded(client, 255 - painting()[:64, :96], "b.png"))
    how = {"positive": ("rated", 0), "negative": ("rated", 1), "vae": ("base", 2), "strength": 0.7}
    first = node("LTXVAddGuide", latent=("empty", 0), image=("a", 0), frame_idx=0, **how)
    last = node("LTXVAddGuide", latent=("first", 2), image=("b", 0), frame_idx=-1, **how)
    graph = ltx(last, **load, first=first, joined=node("LTXVConcatAVLatent", video_latent=("latent", 2), audio_latent=("silence", 0)))
    graph["decoded"]["inputs"]["samples"] = ["parted1", 0]
    graph["sound"]["inputs"]["samples"] = ["parted1", 1]
    frames = await pixels(client, graph)
    assert np.array_equal(frames[0], painting()[:64, :96])
    assert np.array_equal(frames[-1], 255 - painting()[:64, :96])


# again and again


async def test_same_request_gives_the_same_bytes_on_a_fresh_engine(tmp_path):
    array, _ = masked()
    inpaint = changed("in.png", latent=node("VAEEncodeForInpaint", pixels=("loaded", 0), vae=("model", 2), mask=("loaded", 1), grow_mask_by=6))
    start = {"start": node("LoadImage", image="in.png")}
    graphs = [
        FAMILIES["netayume"], changed("in.png", denoise=0.5), inpaint, with_loras(("mika_v3", 0.7)), two_samplers(),
        picture(larger=node("LatentUpscaleBy", samples=("sampled", 0), upscale_method="area", scale_by=1.5), again=sampler(9, 2, 0.4, latent=("larger", 0)),
                decoded=node("VAEDecode", samples=("again", 0), vae=("model", 2))),
        picture(m=node("UpscaleModelLoader", model_name="2x_standin.safetensors"),
                u=node("ImageUpscaleWithModel", upscale_model=("m", 0), image=("decoded", 0)),
                saved=node("SaveImage", images=("u", 0), filename_prefix="u")),
        wan(node("WanFirstLastFrameToVideo", start_image=("start", 0), end_image=("start", 0), width=64, height=64), **start),
        ltx(node("LTXVImgToVideoInplace", vae=("base", 2), image=("start", 0), latent=("empty", 0), strength=1.0, bypass=False), **start),
    ]  # fmt: skip
    made_by = []
    for home in (tmp_path / "one", tmp_path / "two"):
        async with running(home) as client:
            await uploaded(client, array)
            for graph in graphs:
                await made(client, graph)
            made_by.append({file.name: file.read_bytes() for file in (client.engine.home / "output").iterdir()})
            shutil.rmtree(client.engine.home)
    assert len(made_by[0]) == 7 + 9 + 17 + 2
    assert made_by[0] == made_by[1]


async def test_previews_of_a_changed_picture_start_from_it(client):
    name = await uploaded(client, painting())
    ear = await client.listen("A")
    await ear.end_of(await client.submit({"prompt": changed(name, denoise=0.4), "client_id": "A"}))
    previews = [np.asarray(Image.open(io.BytesIO(frame["data"]["image"]))) for frame in ear.frames if frame["type"] == "binary"]
    assert len(previews) == 2
    assert max(distance(preview, painting()) for preview in previews) < 40
