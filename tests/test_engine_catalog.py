"""The engine's classes are those of a recorded ComfyUI 0.3.64, apart from the model files it has; newer ones stand in a file of their own."""

import copy
import json
from pathlib import Path

import pytest

from tests.engines import running
from toolkit.engine import models
from toolkit.engine.catalog import FILE_INPUTS, READ, RECORDED, catalog, lazy, nested, picture_inputs, unfolded
from toolkit.engine.nodes import ASKS, FUNCTIONS

RECORDING = json.loads((Path(__file__).with_name("recordings") / "object_info-0.3.64.json").read_text(encoding="utf-8"))
OLD, ALL = catalog(newer=False), catalog()
NEWER = sorted(set(ALL) - set(OLD))
LISTS = [*FILE_INPUTS, ("LoadImage", "image"), ("LoadImageMask", "image")]


def without_files(name, entry):
    entry = copy.deepcopy(dict(entry))
    for node, key in LISTS:
        if node == name:
            spec = entry["input"]["required"][key]
            if spec[0] == "COMBO":
                spec[1]["options"] = []
            else:
                spec[0] = []
    return entry


def choices(entries, name, key):
    spec = entries[name]["input"]["required"][key]
    return spec[1]["options"] if spec[0] == "COMBO" else spec[0]


def test_each_class_does_something_and_nothing_else_does():
    assert set(FUNCTIONS) == set(ALL)
    assert (len(OLD), len(NEWER)) == (68, 15)
    assert set(ASKS) == {name for name, entry in ALL.items() if lazy(entry)}


@pytest.mark.parametrize("name", OLD)
def test_class_is_the_recorded_one(name):
    assert without_files(name, OLD[name]) == without_files(name, RECORDING[name])
    assert without_files(name, ALL[name]) == without_files(name, RECORDING[name])


@pytest.mark.parametrize("name", ALL)
def test_inputs_come_in_their_real_order(name):
    entry = ALL[name]
    assert {group: list(inputs) for group, inputs in entry["input"].items()} == entry["input_order"]


def test_what_was_only_read_is_told_apart_from_what_was_recorded():
    assert json.loads(RECORDED.read_text(encoding="utf-8"))["recorded"].startswith("GET /object_info of a ComfyUI 0.3.64")
    assert json.loads(READ.read_text(encoding="utf-8"))["read"].startswith("NOT recorded: read in the source")
    assert not set(NEWER) & set(RECORDING)


@pytest.mark.parametrize(("name", "key"), FILE_INPUTS)
def test_file_list_holds_the_files_of_its_folder(name, key):
    found = choices(ALL, name, key)
    assert found
    assert set(found) <= {file for files in models.chosen("all").values() for file in files} | {"pixel_space"}
    assert choices(catalog(models.chosen("none")), name, key) == (["pixel_space"] if name == "VAELoader" else [])


def test_first_files_are_those_that_were_always_there():
    assert choices(ALL, "CheckpointLoaderSimple", "ckpt_name")[:2] == ["standin_xl.safetensors", "standin_xl_b.safetensors"]
    assert choices(ALL, "UNETLoader", "unet_name")[0] == "wan2.2_ti2v_5B_fp16.safetensors"
    assert choices(ALL, "CLIPLoader", "clip_name")[0] == "umt5_xxl_fp8_e4m3fn_scaled.safetensors"
    assert choices(ALL, "VAELoader", "vae_name")[0] == "wan2.2_vae.safetensors"


# models


def test_presets_hold_less_and_less():
    everything, sdxl, none = (models.chosen(name) for name in ("all", "sdxl", "none"))
    assert list(everything) == list(sdxl) == list(none)
    assert all(set(sdxl[folder]) <= set(everything[folder]) for folder in everything)
    assert [sum(map(len, files.values())) for files in (everything, sdxl, none)] == [sum(map(len, everything.values())), 7, 0]
    assert "latent_upscale_models" not in models.chosen("all", newer=False)


def test_files_can_be_named_one_by_one():
    files = models.chosen("checkpoints/a.safetensors, loras/sub/b.safetensors,checkpoints/c.safetensors")
    assert (files["checkpoints"], files["loras"], files["vae"]) == (("a.safetensors", "c.safetensors"), ("sub/b.safetensors",), ())
    assert models.chosen({"vae": ["x"]})["vae"] == ("x",)
    for wrong, words in (("everything", "no set of models"), ("checkpoint/a.safetensors", "no folder of models called checkpoint")):
        with pytest.raises(ValueError, match=words):
            models.chosen(wrong)


# inputs that hang on other inputs


def test_a_choice_brings_inputs_of_its_own():
    entry = ALL["ResizeImageMaskNode"]
    assert [name for name in unfolded(entry, {})["required"] if "." in name] == []
    chosen = unfolded(entry, {"resize_type": "scale dimensions"})["required"]
    assert list(chosen) == ["input", "resize_type", "resize_type.width", "resize_type.height", "resize_type.crop", "scale_method"]
    values = {"input": 1, "resize_type": "scale width", "resize_type.width": 9}
    assert nested(entry, values) == {"input": 1, "resize_type": {"resize_type": "scale width", "width": 9}}


def test_values_grow_by_letters_and_none_is_needed():
    groups = unfolded(ALL["ComfyMathExpression"], {})
    assert (list(groups["required"]), list(groups["optional"])[:3]) == (["expression"], ["values.a", "values.b", "values.c"])
    assert nested(ALL["ComfyMathExpression"], {"expression": "1"}) == {"expression": "1", "values": {}}


def test_plain_classes_unfold_to_what_they_are():
    entry = ALL["KSampler"]
    assert unfolded(entry, {}) == {"required": entry["input"]["required"], "optional": {}}
    assert nested(entry, {"seed": 1}) == {"seed": 1}
    assert [name for name, entry in ALL.items() if picture_inputs(entry)] == ["LoadImage", "LoadImageMask"]


# the same over HTTP


async def test_server_gives_catalog_and_model_folders(tmp_path):
    async with running(tmp_path) as client:
        assert await client.get("/object_info") == dict(ALL)
        assert await client.get("/api/object_info/KSampler") == {"KSampler": ALL["KSampler"]}
        assert await client.get("/object_info/Nope") == {}
        assert await client.get("/models") == list(models.chosen("all"))
        assert (await client.get("/models/checkpoints"))[0] == "standin_xl.safetensors"
        assert await client.get("/models/controlnet") == []
        assert (await client.call("GET", "/models/nope"))[0] == 404
        assert await client.get("/embeddings") == ["easynegative"]


async def test_an_engine_can_be_as_old_as_the_recording(tmp_path):
    async with running(tmp_path, newer=False) as client:
        assert await client.get("/object_info") == dict(OLD)
        (recorded,) = (json.loads(line) for line in recording("k_endpoints") if '"/models"' in line and "http_resp" in line)
        assert await client.get("/models") == recorded["json"]
        graph = {"1": {"class_type": "ManualSigmas", "inputs": {"sigmas": "1"}}, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}
        status, answer = await client.call("POST", "/prompt", json={"prompt": graph})
        assert (status, answer["error"]["message"]) == (400, "Cannot execute because node ManualSigmas does not exist.")


def recording(name):
    return (Path(__file__).with_name("recordings") / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()


async def test_a_smaller_set_of_models_refuses_what_it_lacks(tmp_path):
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "standin_pony.safetensors"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    async with running(tmp_path / "all") as client:
        assert (await client.run({"prompt": graph}))["status"]["status_str"] == "success"
    async with running(tmp_path / "few", models="sdxl") as client:
        status, answer = await client.call("POST", "/prompt", json={"prompt": graph})
        assert (status, answer["node_errors"]["1"]["errors"][0]["type"]) == (400, "value_not_in_list")
        assert await client.get("/models/diffusion_models") == []


async def test_a_file_that_validation_does_not_know_of_fails_when_it_is_loaded(tmp_path):
    graph = {
        "1": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "4x_absent.pth"}},  # a V3 combo, which 0.3.64 does not check
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    async with running(tmp_path) as client:
        ((_, error),) = [message for message in (await client.run({"prompt": graph}))["status"]["messages"] if message[0] == "execution_error"]
        assert error["exception_type"] == "FileNotFoundError"
        assert error["exception_message"] == "Model in folder 'upscale_models' with filename '4x_absent.pth' not found."


async def test_headers_of_loras_tell_what_they_were_trained_on(tmp_path):
    async with running(tmp_path) as client:

        async def header(folder, name):
            return await client.call("GET", f"/view_metadata/{folder}?filename={name}.safetensors")

        for name in ("mika_v3", "ink_lines_xl"):
            status, found = await header("loras", name)
            assert (status, found["ss_base_model_version"], found["modelspec.architecture"]) == (200, "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora")
        assert (await header("loras", "sd15_old_style"))[1]["ss_base_model_version"] == "sd_v1"
        assert (await header("loras", "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise"))[1]["ss_base_model_version"] == "wan"
        for folder, name in (("loras", "gemma-3-12b-it-abliterated_lora_rank64_bf16"), ("loras", "nope"), ("checkpoints", "standin_xl"), ("nope", "x")):
            assert await header(folder, name) == (404, "")
        assert await client.call("GET", "/view_metadata/loras") == (404, "")
        assert await client.call("GET", "/view_metadata/upscale_models?filename=RealESRGAN_x4plus_anime_6B.pth") == (404, "")
