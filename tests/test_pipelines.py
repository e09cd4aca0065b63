"""pipelines: a request becomes the graph of ComfyUI's own template, valid on a recorded server, or a refusal that says what to put where."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.templates import object_info
from toolkit.engine.catalog import catalog as newer_catalog
from toolkit.errors import ModelUnknown, NodeUnknown, RequestInvalid, WorkflowInvalid
from toolkit.graph import NodeCatalog, ancestors, is_link, validate
from toolkit.pipelines import as_asked, build
from toolkit.pipelines.choosing import can_make, choose, lacking, pick
from toolkit.pipelines.families import CLIPS, FAMILIES, LOADERS, PICTURES, SDXL, WAN22_5B, Family, ModelFile, family_of
from toolkit.pipelines.loras import ARCHITECTURES, OF_FAMILY, architecture_of, refuse_foreign
from toolkit.pipelines.sizes import fitted, rounded
from toolkit.pipelines.texts import with_quality
from toolkit.requests import ImageRef, ImageRequest, Request, VideoRequest, WorkflowRequest

RECORDED = {**newer_catalog(newer=True), **object_info()}  # LTX 2.3 needs a few nodes that came after 0.3.64
CHECKPOINTS = ["tiny_sd15.safetensors", "anime/animagine-xl-4.0.safetensors", "illustriousXL_v01.safetensors"]
LORAS = ["mika_v3.safetensors", "styles/ink_lines_xl.safetensors"]
UPSCALERS = ["4x-UltraSharp.pth", "RealESRGAN_x4plus_anime_6B.pth"]
FOX, WOLF = (ImageRef(sha256=digit * 64, width=1000, height=1500) for digit in "ab")
relaxed = settings(deadline=None, max_examples=60)  # a busy machine is no fault


def catalog(files: dict[str, list[str]], without: tuple[str, ...] = (), embeddings: list[str] | None = None, known: Any = RECORDED) -> NodeCatalog:
    """The recorded server with these files in its model folders, and none in the others."""
    info = {name: spec for name, spec in known.items() if name not in without}
    for folder, (class_type, name) in LOADERS.items():
        for node in (class_type, "LoraLoaderModelOnly") if folder == "loras" else (class_type,):
            if node in info:
                info[node] = copy.deepcopy(info[node])
                info[node]["input"]["required"][name][0] = files.get(folder, [])
    return NodeCatalog(info, embeddings)


def files_of(*families: Family, fast: bool = False) -> dict[str, list[str]]:
    """The usual files of these families by folder."""
    found: dict[str, list[str]] = {}
    for family in families:
        for file in (*family.files, *(family.fast.files if fast and family.fast else ())):
            if file.name not in found.setdefault(file.folder, []):
                found[file.folder].append(file.name)
    return found


@cache
def own_server(family: Family) -> NodeCatalog:
    return server_of(family)


def server_of(*families: Family, fast: bool = False, **more: list[str]) -> NodeCatalog:
    """A server with exactly what these families need, LoRAs and upscale models."""
    own = files_of(*families, fast=fast)
    return catalog({**own, "loras": [*own.get("loras", []), *LORAS], "upscale_models": UPSCALERS, **more}, embeddings=["easynegative"])


FULL = server_of(*FAMILIES, fast=True)
XL = server_of(SDXL)


def one(graph: dict[str, Any], class_type: str) -> dict[str, Any]:
    (found,) = [node["inputs"] for node in graph.values() if node["class_type"] == class_type]
    return found


def classes(graph: dict[str, Any]) -> list[str]:
    return [node["class_type"] for node in graph.values()]


def literals(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if not is_link(value)}


def above(graph: dict[str, Any], class_type: str, name: str) -> list[str]:
    """The classes upstream of an input of the last node of a class."""
    node = [node for node in graph.values() if node["class_type"] == class_type][-1]
    return [graph[node_id]["class_type"] for node_id in ancestors(graph, [node["inputs"][name][0]])]


def request_for(family: Family, **fields: Any) -> Request:
    """A request that only this family can serve on a server that has nothing else."""
    if family.kind == "image":
        return ImageRequest(prompt="a fox", seed=5, **fields)
    pictures = {"image": FOX} if family.pictures else {}
    return VideoRequest(prompt="a fox", seed=5, **(pictures | {"last_image": WOLF} if family.pictures > 1 else pictures), **fields)


# ---- every family ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("preset", ["draft", "standard", "high"])
def test_every_family_builds_every_preset_without_faults(family, preset):
    built = build(request_for(family, preset=preset), server_of(family), "toolkit/x")
    about, recipe = family.presets[preset], built.recipe
    assert validate(built.graph, server_of(family)) == []
    assert (recipe["family"], recipe["preset"], recipe["seed"], recipe["steps"], recipe["fast"]) == (family.name, preset, 5, about.steps, False)
    assert recipe["model"] == family.files[0].name.rsplit(".", 1)[0]
    assert "a fox" in recipe["prompt"]
    assert recipe["frames"] == about.frames
    assert about.width % family.multiple == about.height % family.multiple == 0
    assert all(text not in str(built.graph) for text in (".jpg", "_input_image", "start_image.png")), "an example picture of the template is left"
    assert [node["inputs"]["filename_prefix"].startswith("toolkit/x/") for node in built.graph.values() if "filename_prefix" in node["inputs"]] == [True]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.fast], ids=lambda family: family.name)
def test_a_draft_takes_the_fast_way_where_the_server_has_it(family):
    server = server_of(family, fast=True)
    built = build(request_for(family, preset="draft"), server)
    assert validate(built.graph, server) == []
    assert (built.recipe["fast"], built.recipe["steps"], built.recipe["cfg"]) == (True, family.fast.steps, family.fast.cfg)
    loras = [(lora["name"], lora["strength"]) for lora in built.recipe["loras"]]
    assert loras == [(file.name.rsplit(".", 1)[0], 1.0) for file in family.fast.files]
    for wish in ({"preset": "standard"}, {"preset": "draft", "steps": 9}, {"preset": "draft", "cfg": 4.0}):
        assert not build(request_for(family, **wish), server).recipe["fast"]


def test_two_experts_get_their_own_lora_and_half_the_steps_each():
    family = next(family for family in CLIPS if family.name == "wan22_14b_t2v")
    graph = build(VideoRequest(prompt="a", steps=30, loras=[{"name": "mika"}]), server_of(family)).graph
    shares = [(node["start_at_step"], node["end_at_step"], node["steps"]) for node in (n["inputs"] for n in graph.values()) if "end_at_step" in node]
    assert sorted(shares) == [(0, 15, 30), (15, 30, 30)]
    assert classes(graph).count("LoraLoaderModelOnly") == 2  # one that names no expert is for both
    draft = build(VideoRequest(prompt="a", preset="draft"), server_of(family, fast=True)).graph
    pairs = {node["inputs"]["lora_name"]: draft[node["inputs"]["model"][0]]["inputs"]["unet_name"] for node in draft.values() if "lora_name" in node["inputs"]}
    assert {("high" in lora, "high" in model) for lora, model in pairs.items()} == {(True, True), (False, False)}


@pytest.mark.parametrize(
    ("name", "folder", "family"),
    [
        ("waiNSFWIllustrious_v150.safetensors", "checkpoints", "illustrious"), ("hassakuXLIllustrious_v31.safetensors", "checkpoints", "illustrious"),
        ("sub/noobaiXLNAIXL_vPred10Version.safetensors", "checkpoints", "noobai"), ("animagine-xl-4.0-opt.safetensors", "checkpoints", "animagine"),
        ("ponyDiffusionV6XL_v6StartWithThisOne.safetensors", "checkpoints", "pony"), ("sd_xl_base_1.0.safetensors", "checkpoints", "sdxl"),
        ("v1-5-pruned-emaonly.safetensors", "checkpoints", "sd15"), ("meinamix_v12Final.safetensors", "checkpoints", "sd15"),
        ("NetaYumev35_pretrained_all_in_one.safetensors", "checkpoints", "netayume"), ("myMerge_v3.safetensors", "checkpoints", None),
        ("anima-base-v1.0.safetensors", "diffusion_models", "anima"), ("z_image_turbo_bf16.safetensors", "diffusion_models", "z_image_turbo"),
        ("qwen_image_2512_fp8_e4m3fn.safetensors", "diffusion_models", "qwen_image"), ("qwen_image_edit_2511_bf16.safetensors", "diffusion_models", None),
        ("wan2.2_ti2v_5B_fp16.safetensors", "diffusion_models", "wan22_5b"), ("flux1-dev.safetensors", "diffusion_models", None),
        ("wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors", "diffusion_models", "wan22_14b_i2v"),
        ("Wan2_2-T2V-A14B_HIGH_fp8.safetensors", "diffusion_models", "wan22_14b_t2v"),
    ],
)  # fmt: skip
def test_a_family_is_recognised_by_the_name_of_its_file(name, folder, family):
    found = family_of(name, folder)
    assert (found.name if found else None) == family


def test_a_server_can_make_what_it_has_all_files_for():
    assert can_make(server_of(SDXL, WAN22_5B)) == ["sdxl", "wan22_5b"]
    assert set(can_make(FULL)) == {family.name for family in FAMILIES}
    assert can_make(NodeCatalog(RECORDED)) == ["sd15"]  # it had tiny_sd15


# ---- the rules of choice --------------------------------------------------------------------------------------------------------------


def test_pictures_take_the_first_family_that_is_all_there_and_say_why():
    everything = build(ImageRequest(prompt="a"), FULL)
    assert everything.recipe["family"] == PICTURES[0].name
    assert everything.recipe["choice"] == "Illustrious checkpoint, the first family in our order whose files are all there"
    assert build(ImageRequest(prompt="a"), server_of(*PICTURES[3:])).recipe["family"] == PICTURES[3].name


@pytest.mark.parametrize(
    ("fields", "family"),
    [({}, "wan22_14b_t2v"), ({"image": FOX}, "wan22_14b_i2v"), ({"image": FOX, "last_image": WOLF}, "wan22_14b_flf2v"), ({"model": "5B"}, "wan22_5b")],
)
def test_clips_are_routed_by_their_input_pictures_and_a_named_model_overrules(fields, family):
    built = build(VideoRequest(prompt="a", **fields), FULL)
    assert built.recipe["family"] == family
    said = "was asked for" if "model" in fields else "first and a last frame" if "last_image" in fields else "first frame" if fields else "files are all there"
    assert said in built.recipe["choice"]


def test_a_first_frame_goes_to_the_small_family_where_there_is_no_other():
    built = build(VideoRequest(prompt="a", image=FOX), server_of(WAN22_5B))
    assert one(built.graph, "LoadImage") == {"image": f"toolkit/{'a' * 64}.png"}
    assert above(built.graph, "Wan22ImageToVideoLatent", "start_image") == ["LoadImage"]
    assert (built.recipe["width"], built.recipe["height"]) == (512, 768)  # the picture's shape
    with pytest.raises(ModelUnknown, match="cannot make clips yet"):
        build(VideoRequest(prompt="a", image=FOX, last_image=WOLF), server_of(WAN22_5B))
    with pytest.raises(RequestInvalid, match=r"Wan 2\.2 5B takes no input picture|takes"):
        build(VideoRequest(prompt="a", image=FOX, last_image=WOLF, model="5B"), server_of(WAN22_5B))


def test_a_model_of_the_other_kind_is_refused():
    with pytest.raises(RequestInvalid, match="makes clips") as refused:
        build(ImageRequest(prompt="a", model="ti2v"), FULL)
    assert refused.value.field == "model"
    with pytest.raises(RequestInvalid, match="makes pictures"):
        build(VideoRequest(prompt="a", model="illustrious"), FULL)


def test_a_wished_model_is_taken_if_it_is_there_and_said_if_not():
    wish = build(ImageRequest(prompt="a", prefer_model="animagine"), FULL)
    assert (wish.recipe["family"], wish.warnings) == ("animagine", ())
    other = build(ImageRequest(prompt="a", prefer_model="dreamshaper_8"), FULL)
    assert other.recipe["family"] == PICTURES[0].name
    assert "names the model dreamshaper_8, which the server does not have" in other.warnings[0]


def test_a_checkpoint_that_nobody_knows_is_taken_for_sdxl_and_that_is_said():
    built = build(ImageRequest(prompt="a"), catalog({"checkpoints": ["myMerge_v3.safetensors"]}))
    assert (built.recipe["family"], built.recipe["model"]) == ("sdxl", "myMerge_v3")
    assert "taken for an SDXL checkpoint" in built.warnings[0]


# ---- files ----------------------------------------------------------------------------------------------------------------------------


def checkpoint(asked: str | None, names: list[str]) -> str:
    return choose("image", catalog({"checkpoints": names}), asked).files[0]


@pytest.mark.parametrize(
    ("asked", "names", "found"),
    [
        ("illustrious", CHECKPOINTS, "illustriousXL_v01.safetensors"),
        ("Animagine XL", CHECKPOINTS, "anime/animagine-xl-4.0.safetensors"),
        ("anime/animagine-xl-4.0.safetensors", CHECKPOINTS, "anime/animagine-xl-4.0.safetensors"),
        ("anime\\animagine-xl-4.0.safetensors", CHECKPOINTS, "anime/animagine-xl-4.0.safetensors"),
        ("anime/x.safetensors", ["anime\\x.safetensors"], "anime\\x.safetensors"),
        ("anime-xl", ["anime-xl-v2.safetensors", "anime-xl.safetensors"], "anime-xl.safetensors"),
        ("anime_xl", ["anime-xl-v2.safetensors", "anime-xl.safetensors"], "anime-xl.safetensors"),
        ("a.safetensors", ["a.safetensors", "aa.safetensors"], "a.safetensors"),
    ],
)
def test_any_unambiguous_part_of_a_name_is_enough_and_a_whole_one_wins(asked, names, found):
    assert checkpoint(asked, names) == found
    built = build(ImageRequest(prompt="a", model=asked), catalog({"checkpoints": names}))
    assert one(built.graph, "CheckpointLoaderSimple")["ckpt_name"] == found


@pytest.mark.parametrize("names", [["xl-a.safetensors", "xl-b.safetensors"], ["one/xl.safetensors", "two/xl.safetensors"], ["xl.safetensors", "xl.ckpt"]])
def test_an_ambiguous_name_lists_what_it_fits(names):
    with pytest.raises(ModelUnknown) as refused:
        checkpoint("xl", names)
    assert refused.value.field == "model"
    assert all(name in str(refused.value) for name in names)


def test_an_unknown_name_gets_the_nearest_ones_or_where_to_put_it():
    with pytest.raises(ModelUnknown, match=r"no model 'ilustrious' in checkpoints. Did you mean illustriousXL_v01"):
        checkpoint("ilustrious", CHECKPOINTS)
    with pytest.raises(ModelUnknown, match=r"Put the file into models/checkpoints"):
        checkpoint("ilustrious", [])


@relaxed
@given(st.text(min_size=1, max_size=6), st.lists(st.text("ab-_./\\", min_size=1, max_size=6), unique=True, max_size=5))
def test_a_picked_name_is_always_one_the_server_has(asked, names):
    try:
        assert pick(asked, names, "model", ModelFile("", "checkpoints")) in names
    except ModelUnknown:
        assume(True)


def test_a_server_without_pictures_says_what_to_put_where():
    with pytest.raises(ModelUnknown, match=r"cannot make pictures yet: it has no Illustrious checkpoint files") as refused:
        build(ImageRequest(prompt="a"), catalog({}))
    assert "Put e.g. Illustrious-XL-v2.0.safetensors into models/checkpoints of the server (https://" in refused.value.faults[0]


def test_a_server_without_clips_names_every_missing_file_at_once():
    with pytest.raises(ModelUnknown, match=r"cannot make clips yet: it has no Wan 2\.2 5B files") as refused:
        build(VideoRequest(prompt="a"), NodeCatalog(RECORDED))
    assert [fault.split()[2] for fault in refused.value.faults] == [file.name for file in WAN22_5B.files]


def test_the_family_with_the_fewest_files_to_get_is_named():
    family = next(family for family in CLIPS if family.name == "wan22_14b_t2v")
    server = catalog({**files_of(family), "vae": []})
    assert [file.name for file in lacking(family, server)] == ["wan_2.1_vae.safetensors"]
    with pytest.raises(ModelUnknown, match=r"no Wan 2\.2 14B text to clip files. Put e.g. wan_2.1_vae.safetensors into models/vae"):
        build(VideoRequest(prompt="a"), server)


def test_a_server_without_the_nodes_of_a_family_names_them():
    with pytest.raises(NodeUnknown, match=r"no node CreateVideo, SaveVideo, which .* needs. Update ComfyUI."):
        build(VideoRequest(prompt="a"), catalog(files_of(*CLIPS), without=("CreateVideo", "SaveVideo")))


def test_the_usual_file_is_preferred_to_another_that_fits():
    names = ["umt5_other.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"]
    built = build(VideoRequest(prompt="a"), server_of(WAN22_5B, text_encoders=names))
    assert one(built.graph, "CLIPLoader")["clip_name"] == names[1]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_file_of_a_family_stands_in_its_template_and_is_recognised(family):
    names = {value for node in family.template().values() for value in node["inputs"].values() if isinstance(value, str)}
    for file in family.files:
        assert file.fits(file.name)
        assert file.folder in LOADERS
        assert file.name in names or family.graph == "sdxl"
    assert family_of(family.files[0].name, family.files[0].folder).files[0] == family.files[0]


# ---- texts ----------------------------------------------------------------------------------------------------------------------------


def test_quality_words_are_the_familys_once_and_only_if_wanted():
    assert with_quality("a fox", SDXL, True) == "masterpiece, best quality, a fox"
    assert with_quality("a fox", SDXL, False) == "a fox"
    assert with_quality("Masterpiece, best quality, a fox", SDXL, True) == "Masterpiece, best quality, a fox"
    assert with_quality("a fox", WAN22_5B, True) == "a fox"
    assert build(ImageRequest(prompt="a fox", quality_tags=False), XL).recipe["prompt"] == "a fox"


def test_a_prompt_is_drawn_its_loras_loaded_and_what_is_sent_is_in_the_recipe():
    request = ImageRequest(prompt="1girl, <lora:mika_v3:0.8>, {shrine|forest}, __hair__", seed=3, loras=[{"name": "ink lines", "strength": 0.5}])
    built = build(request, XL, wildcards={"hair": ["silver hair"]}.get)
    assert built.recipe["prompt"] in ("masterpiece, best quality, 1girl, shrine, silver hair", "masterpiece, best quality, 1girl, forest, silver hair")
    assert built.recipe["loras"] == [{"name": "styles/ink_lines_xl", "strength": 0.5}, {"name": "mika_v3", "strength": 0.8}]
    assert build(request, XL, wildcards={"hair": ["silver hair"]}.get) == built
    assert validate(built.graph, XL) == []
    chain = above(built.graph, "KSampler", "model")
    assert chain.count("LoraLoader") == 2
    assert above(built.graph, "CLIPTextEncode", "clip").count("LoraLoader") == 2


def test_a_lora_that_is_not_there_is_refused_with_the_nearest_one():
    with pytest.raises(ModelUnknown, match=r"no lora 'mikka' in loras. Did you mean mika_v3") as refused:
        build(ImageRequest(prompt="a <lora:mikka:1>"), XL)
    assert refused.value.field == "lora"


def test_an_embedding_is_checked_where_the_server_says_what_it_has():
    assert build(ImageRequest(prompt="a", negative_prompt="embedding:easynegative, (embedding:easynegative.pt:1.2)"), XL).warnings == ()
    with pytest.raises(ModelUnknown, match=r"no embedding 'easynegativ'. Did you mean easynegative"):
        build(ImageRequest(prompt="embedding:easynegativ"), XL)
    unknown = NodeCatalog(XL.object_info)
    assert build(ImageRequest(prompt="embedding:whatever"), unknown).warnings == ()


def test_a_family_without_a_negative_prompt_says_that_it_is_left_out():
    family = next(family for family in PICTURES if family.name == "z_image_turbo")
    assert build(ImageRequest(prompt="a"), server_of(family)).warnings == ()
    assert build(ImageRequest(prompt="a", negative_prompt="hands"), server_of(family)).warnings == ("Z-Image Turbo takes no negative prompt: it is left out.",)


def test_zero_and_empty_are_values():
    recipe = build(ImageRequest(prompt="a", cfg=0, negative_prompt=""), XL).recipe
    assert (recipe["cfg"], recipe["negative_prompt"]) == (0, "")


# ---- from a picture, larger ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PICTURES, ids=lambda family: family.name)
def test_every_picture_family_begins_with_a_picture_masks_and_enlarges(family):
    server = server_of(family)
    begun = build(ImageRequest(prompt="a", image=FOX, denoise=0.5, batch_size=2), server)
    masked = build(ImageRequest(prompt="a", image=FOX, mask=WOLF), server)
    larger = build(ImageRequest(prompt="a", upscale=1.5), server)
    for built in (begun, masked, larger):
        assert validate(built.graph, server) == []
    assert not [name for name in classes(begun.graph) if name.startswith("Empty")]
    assert set(above(begun.graph, "VAEEncode", "pixels")) == {"LoadImage", "ImageScale"}
    assert one(begun.graph, "RepeatLatentBatch")["amount"] == 2
    assert (one(begun.graph, "KSampler")["denoise"], one(masked.graph, "KSampler")["denoise"]) == (0.5, 1.0)
    assert abs(begun.recipe["width"] / begun.recipe["height"] - 2 / 3) < 0.03
    assert begun.recipe["width"] * begun.recipe["height"] <= family.area * 1.05


def test_only_the_masked_part_is_made_anew():
    graph = build(ImageRequest(prompt="a", image=FOX, mask=WOLF), XL).graph
    assert above(graph, "SetLatentNoiseMask", "mask") == ["LoadImageMask"]
    whole = one(graph, "ImageCompositeMasked")
    assert graph[whole["mask"][0]]["class_type"] == "LoadImageMask"
    assert graph[whole["destination"][0]]["class_type"] == "ImageScale"
    assert graph[one(graph, "SaveImage")["images"][0]]["class_type"] == "ImageCompositeMasked"


def test_a_second_pass_goes_through_the_upscale_model_for_drawings():
    built = build(ImageRequest(prompt="a", width=832, height=1216, upscale=1.5), XL)
    assert one(built.graph, "UpscaleModelLoader")["model_name"] == "RealESRGAN_x4plus_anime_6B.pth"
    assert (one(built.graph, "ImageScale")["width"], one(built.graph, "ImageScale")["height"]) == (1248, 1824)
    first, second = (node["inputs"] for node in built.graph.values() if node["class_type"] == "KSampler")
    assert (first["denoise"], second["denoise"]) == (1, 0.4)
    assert (first["seed"], first["steps"]) == (second["seed"], second["steps"])


def test_without_an_upscale_model_the_latent_is_enlarged():
    server = server_of(SDXL, upscale_models=[])
    built = build(ImageRequest(prompt="a", width=832, height=1216, upscale=2), server)
    assert (one(built.graph, "LatentUpscale")["width"], one(built.graph, "LatentUpscale")["height"]) == (1664, 2432)
    assert [node["inputs"]["denoise"] for node in built.graph.values() if node["class_type"] == "KSampler"] == [1, 0.55]


def test_a_picture_is_only_enlarged_where_nothing_is_to_change():
    server = catalog({"upscale_models": UPSCALERS})  # needs no other model
    built = build(ImageRequest(prompt="a", image=FOX, upscale=2), server)
    assert classes(built.graph) == ["LoadImage", "UpscaleModelLoader", "ImageUpscaleWithModel", "ImageScale", "SaveImage"]
    assert (one(built.graph, "ImageScale")["width"], one(built.graph, "ImageScale")["height"]) == (2000, 3000)
    changed = build(ImageRequest(prompt="a", image=FOX, upscale=2, denoise=0.3), XL)
    assert "KSampler" in classes(changed.graph)
    with pytest.raises(ModelUnknown, match="into models/upscale_models"):
        build(ImageRequest(prompt="a", image=FOX, upscale=2), server_of(SDXL, upscale_models=[]))


def test_pony_reads_its_text_earlier_and_a_velocity_model_says_so():
    pony = next(family for family in PICTURES if family.name == "pony")
    graph = build(ImageRequest(prompt="a", loras=[{"name": "mika"}]), server_of(pony)).graph
    assert one(graph, "CLIPSetLastLayer")["stop_at_clip_layer"] == -2
    assert above(graph, "CLIPTextEncode", "clip").count("CLIPSetLastLayer") == 1
    velocity = build(ImageRequest(prompt="a"), catalog({"checkpoints": ["noobaiXL_vPred10.safetensors"]})).graph
    assert one(velocity, "ModelSamplingDiscrete")["sampling"] == "v_prediction"
    assert set(above(velocity, "KSampler", "model")) == {"ModelSamplingDiscrete", "CheckpointLoaderSimple"}


# ---- always valid ---------------------------------------------------------------------------------------------------------------------

SIDES = st.none() | st.integers(8, 512).map(lambda eighth: eighth * 8)
SAMPLERS = st.none() | st.sampled_from(FULL.choices("KSampler", "sampler_name"))
SCHEDULERS = st.none() | st.sampled_from(FULL.choices("KSampler", "scheduler"))
WORDS = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() and not set(text) & set("{}[]<>_&:\x00\\"))
COMMON = {
    "prompt": WORDS, "negative_prompt": st.none() | WORDS, "seed": st.integers(0, 2**64 - 1),
    "preset": st.sampled_from(["draft", "standard", "high"]), "steps": st.none() | st.integers(1, 200), "cfg": st.none() | st.floats(0, 100),
    "sampler": SAMPLERS, "scheduler": SCHEDULERS, "width": SIDES, "height": SIDES,
    "loras": st.lists(st.sampled_from([{"name": "mika"}, {"name": "ink"}]), max_size=2),
}  # fmt: skip


OF_PICTURES = {"batch_size": st.integers(1, 64), "quality_tags": st.booleans(), "upscale": st.none() | st.floats(1.1, 4)}


@relaxed
@given(st.fixed_dictionaries({**COMMON, **OF_PICTURES}), st.sampled_from(PICTURES))
def test_every_picture_request_becomes_a_graph_without_faults(fields, family):
    assume(fields["upscale"] is None or max(fields["width"] or 0, fields["height"] or 0) <= 2048)  # no node takes more than 16384 pixels
    server = own_server(family)
    built = build(ImageRequest(**fields), server, "toolkit/x")
    assert validate(built.graph, server) == []
    assert (built.recipe["seed"], built.recipe["family"], built.recipe["frames"]) == (fields["seed"], family.name, 1)
    for asked, made in (("cfg", "cfg"), ("sampler", "sampler"), ("scheduler", "scheduler"), ("width", "width"), ("height", "height")):
        assert fields[asked] is None or built.recipe[made] == fields[asked]
    assert one(built.graph, "SaveImage")["filename_prefix"] == "toolkit/x/picture"


LENGTHS = st.one_of(st.just({}), st.fixed_dictionaries({"seconds": st.floats(0.01, 60)}), st.fixed_dictionaries({"frames": st.integers(1, 1024)}))


@relaxed
@given(st.fixed_dictionaries({**COMMON, "fps": st.none() | st.floats(1, 60)}), LENGTHS, st.sampled_from(CLIPS))
def test_every_clip_request_becomes_a_graph_without_faults_and_rounding_is_said(fields, length, family):
    server = own_server(family)
    pictures = {"image": FOX, "last_image": WOLF} if family.pictures == 2 else {"image": FOX} if family.pictures else {}
    fps = fields["fps"] or family.fps
    assume(length.get("frames", length.get("seconds", 0) * fps) < 990)  # LTXVEmptyLatentAudio takes 1,000: more is refused before it is sent
    built = build(VideoRequest(**fields, **length, **pictures), server)
    assert validate(built.graph, server) == []
    recipe = built.recipe
    assert recipe["frames"] % family.frame_step == 1
    assert recipe["width"] % family.multiple == recipe["height"] % family.multiple == 0
    assert recipe["fps"] == fps
    wanted = length.get("frames") or (round(length["seconds"] * fps) if "seconds" in length else recipe["frames"])
    assert abs(recipe["frames"] - wanted) <= family.frame_step // 2 or recipe["frames"] == family.frame_step + 1
    assert any("frames" in warning for warning in built.warnings) == (recipe["frames"] != wanted)
    sides = [fields[side] for side in ("width", "height")]
    assert any("pixels" in warning for warning in built.warnings) == any(
        side not in (None, recipe[name]) for name, side in zip(("width", "height"), sides, strict=True)
    )


# ---- sizes ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("aspect", list(SDXL.aspects))
def test_an_aspect_becomes_a_trained_size(aspect):
    built = build(ImageRequest(prompt="a", aspect=aspect), XL)
    assert (built.recipe["width"], built.recipe["height"]) == SDXL.aspects[aspect]
    assert 0.9 < built.recipe["width"] * built.recipe["height"] / 1024**2 < 1.1


def test_any_two_numbers_become_the_nearest_trained_size():
    recipe = build(ImageRequest(prompt="a", aspect="21:9"), XL).recipe
    assert (recipe["width"], recipe["height"]) == (1344, 768)


def test_an_aspect_is_refused_beside_a_size_or_when_it_is_none():
    with pytest.raises(RequestInvalid, match="not both") as refused:
        build(ImageRequest(prompt="a", aspect="2:3", width=512), XL)
    assert refused.value.field == "aspect"
    for wrong in ("upright", "0:7", "100:1", "2:x"):
        with pytest.raises(RequestInvalid, match=rf"`aspect` is '{wrong}': it must be one of square, 1:1"):
            build(ImageRequest(prompt="a", aspect=wrong), XL)


@given(st.integers(1, 5000), st.sampled_from([8, 16, 32]))
def test_rounding_gives_the_nearest_multiple_and_at_least_one(value, multiple):
    result = rounded(value, multiple)
    assert result % multiple == 0
    assert result >= multiple
    assert abs(result - value) <= multiple / 2 or result == multiple


@given(st.integers(64, 9000), st.integers(64, 9000), st.sampled_from([8, 16, 32]))
def test_a_pictures_shape_is_kept_within_the_area(width, height, multiple):
    assume(0.25 < width / height < 4)
    made = fitted(width, height, 1024 * 1024, multiple)
    assert made[0] % multiple == made[1] % multiple == 0
    assert made[0] * made[1] <= 1.1 * 1024 * 1024
    assert abs(max(made) / min(made) - max(width, height) / min(width, height)) <= multiple / 2 / min(made) + 1e-9
    assert (made[0] > made[1]) <= (width > height)


# ---- the user's own -------------------------------------------------------------------------------------------------------------------

OWN = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "my pictures/fox 1"}, "_meta": {"title": "Keep"}},
    "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}


def test_a_workflow_is_sent_as_it_is_but_into_its_own_folder():
    built = build(WorkflowRequest(workflow=OWN), FULL, "toolkit/j1")
    expected = copy.deepcopy(OWN)
    expected["2"]["inputs"]["filename_prefix"] = "toolkit/j1/fox_1"
    assert built.graph == expected
    assert OWN["2"]["inputs"]["filename_prefix"] == "my pictures/fox 1", "the request stays as it was"
    assert built.recipe["graph_hash"]


@pytest.mark.parametrize(
    ("prefix", "name"),
    [("../../etc/passwd", "passwd"), ("a\\b", "b"), ("", "output"), ("..", "output"), ("x" * 90, "x" * 60), ("狐 %date%", "狐_date"), ("a/", "output")],
)
def test_a_prefix_never_leaves_the_jobs_folder(prefix, name):
    own = copy.deepcopy(OWN)
    own["2"]["inputs"]["filename_prefix"] = prefix
    assert build(WorkflowRequest(workflow=own), FULL, "toolkit/j1").graph["2"]["inputs"]["filename_prefix"] == f"toolkit/j1/{name}"


@relaxed
@given(st.text(max_size=80))
def test_any_prefix_is_one_safe_name_below_the_folder(prefix):
    own = copy.deepcopy(OWN)
    own["2"]["inputs"]["filename_prefix"] = prefix
    made = build(WorkflowRequest(workflow=own), FULL, "f").graph["2"]["inputs"]["filename_prefix"]
    folder, _, name = made.partition("/")
    assert folder == "f"
    assert name not in ("", ".", "..")
    assert not set(name) & set('/\\:*?"<>|% \n\0')


def test_a_graph_that_was_sent_is_known_again_without_its_folder():
    own = WorkflowRequest(workflow=OWN)
    assert as_asked(build(own, FULL, "toolkit/j1/2").graph, own, "toolkit/j1/2") == OWN
    for request, name in ((ImageRequest(prompt="a", seed=1), "picture"), (VideoRequest(prompt="a", seed=1), "clip")):
        (sent, other) = (build(request, FULL, folder).graph for folder in ("toolkit/j1/1", "toolkit/j2/1"))
        known = as_asked(sent, request, "toolkit/j1/1")
        assert known == as_asked(other, request, "toolkit/j2/1") != sent
        assert [node["inputs"]["filename_prefix"] for node in known.values() if node["class_type"].startswith("Save")] == [name]


def test_a_prefix_that_comes_from_another_node_is_left_alone():
    own = copy.deepcopy(OWN)
    own["4"] = {"class_type": "PrimitiveString", "inputs": {"value": "x"}}
    own["2"]["inputs"]["filename_prefix"] = ["4", 0]
    assert build(WorkflowRequest(workflow=own), FULL).graph["2"]["inputs"]["filename_prefix"] == ["4", 0]


def changed(node_id: str, **inputs: Any) -> dict[str, Any]:
    own = copy.deepcopy(OWN)
    own[node_id]["inputs"] |= inputs
    return own


@pytest.mark.parametrize(
    ("graph", "kind", "sentence"),
    [
        (changed("1", width=-1), WorkflowInvalid, "EmptyImage (node 1): `width` is -1; it takes 1 to 16384."),
        (changed("1", width=-1, height="x"), WorkflowInvalid, "EmptyImage (node 1): `width` is -1; it takes 1 to 16384. (and 1 more)"),
        ({**OWN, "4": {"class_type": "KSamplr", "inputs": {}}}, NodeUnknown, "The server lacks KSamplr. Did you mean KSampler?"),
        ({**OWN, "4": {"class_type": None, "inputs": {}}}, WorkflowInvalid, "node 4 (node 4): it has no class_type."),
        ({**OWN, "4": 5}, WorkflowInvalid, "node 4 (node 4): it has no class_type."),
        ({**OWN, "4": {"class_type": "SaveImage"}}, WorkflowInvalid, "SaveImage (node 4): it has no inputs."),
        ({**OWN, "4": {"class_type": "VAELoader", "inputs": {"vae_name": "b"}}}, ModelUnknown, "VAELoader (node 4): `vae_name` is 'b'"),
        ({}, WorkflowInvalid, "The graph: it has no nodes."),
    ],
    ids=lambda value: str(value)[-30:] if not isinstance(value, type) else value.__name__,
)  # fmt: skip
def test_what_the_server_would_refuse_is_never_sent(graph, kind, sentence):
    with pytest.raises(WorkflowInvalid) as refused:
        build(WorkflowRequest(workflow=graph), FULL)
    assert type(refused.value) is kind
    assert str(refused.value).startswith(sentence)
    assert refused.value.faults


@pytest.mark.parametrize(("last", "said"), [(0, "it has a cycle"), (3000, "its longest chain has 3002 nodes")], ids=["circle", "chain"])
def test_a_workflow_of_any_depth_is_refused_in_words(last, said):
    deep: dict[str, Any] = {str(n): {"class_type": "LatentRotate", "inputs": {"samples": [str(n + 1), 0], "rotation": "none"}} for n in range(3000)}
    deep["2999"]["inputs"]["samples"] = [str(last), 0]
    deep["3000"] = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    deep["out"] = {"class_type": "SaveLatent", "inputs": {"samples": ["0", 0], "filename_prefix": "x"}}
    with pytest.raises(WorkflowInvalid, match=said):
        build(WorkflowRequest(workflow=deep), FULL)


def test_a_request_of_no_known_kind_is_a_programming_error():
    with pytest.raises(TypeError, match="no pipeline for Request"):
        build(Request(), FULL)


# ---- what LoRAs were made for -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metadata", "architecture"),
    [
        ({"ss_base_model_version": "sdxl_base_v1-0"}, "sdxl"), ({"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}, "sdxl"),
        ({"ss_base_model_version": "sd_v1"}, "sd1"), ({"modelspec.architecture": "wan2.1/lora"}, "wan"), ({"ss_base_model_version": "anima"}, "anima"),
        ({"ss_base_model_version": "flux1"}, "flux"), ({"ss_tag_frequency": "{}"}, None), ({}, None), (None, None),
    ],
)  # fmt: skip
def test_a_loras_file_says_what_it_was_made_for(metadata, architecture):
    assert architecture_of(metadata) == architecture


def test_a_lora_of_another_architecture_is_refused_and_one_that_says_nothing_passes():
    about = {"mika_v3.safetensors": {"ss_base_model_version": "sdxl_base_v1-0"}, "silent.safetensors": None}
    for fitting in ("illustrious", "pony", "sdxl", None, "a family of tomorrow"):
        refuse_foreign(fitting, about)
    for foreign, title in (("anima", "Anima"), ("wan22_5b", r"Wan 2\.2 5B"), ("sd15", r"SD 1\.5 checkpoint")):
        with pytest.raises(ModelUnknown, match=rf"mika_v3.safetensors was made for SDXL and does nothing to {title}\. Leave it out"):
            refuse_foreign(foreign, about)


def test_every_family_has_an_architecture():
    assert set(OF_FAMILY) == {family.name for family in FAMILIES}
    assert set(OF_FAMILY.values()) <= set(ARCHITECTURES)
