"""The engine's node classes are those of a recorded ComfyUI 0.3.64, apart from the model files it has."""

import copy
import json
from pathlib import Path

import aiohttp
import pytest

from toolkit.engine.catalog import FILE_INPUTS, catalog
from toolkit.engine.execution import Options
from toolkit.engine.models import MODEL_FOLDERS
from toolkit.engine.nodes import FUNCTIONS
from toolkit.engine.server import Engine

RECORDED = json.loads((Path(__file__).with_name("recordings") / "object_info-0.3.64.json").read_text(encoding="utf-8"))
FILES = {
    "CheckpointLoaderSimple": ("ckpt_name", ["standin_xl.safetensors", "standin_xl_b.safetensors"]),
    "UNETLoader": ("unet_name", ["wan2.2_ti2v_5B_fp16.safetensors"]),
    "CLIPLoader": ("clip_name", ["umt5_xxl_fp8_e4m3fn_scaled.safetensors"]),
    "VAELoader": ("vae_name", ["wan2.2_vae.safetensors", "pixel_space"]),
}


def without_files(name: str, entry: dict) -> dict:
    entry = copy.deepcopy(entry)
    if name in FILES:
        entry["input"]["required"][FILES[name][0]][0] = []
    return entry


def test_there_are_eighteen_classes_and_each_does_something():
    assert len(FUNCTIONS) == 18
    assert set(FUNCTIONS) == set(catalog())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_class_is_the_recorded_one(name):
    assert without_files(name, catalog()[name]) == without_files(name, RECORDED[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_come_in_their_real_order(name):
    entry = catalog()[name]
    assert {group: list(inputs) for group, inputs in entry["input"].items()} == entry["input_order"]


@pytest.mark.parametrize("name", FILES)
def test_file_list_holds_the_stand_in_models(name):
    key, files = FILES[name]
    assert catalog()[name]["input"]["required"][key][0] == files
    assert (name, key) in FILE_INPUTS


async def test_server_gives_catalog_and_model_folders(tmp_path):
    engine = Engine(tmp_path, Options(step_s=0, load_s=0))
    url = await engine.start()
    async with aiohttp.ClientSession(url) as session:

        async def get(path):
            async with session.get(path) as reply:
                return reply.status, await reply.json(content_type=None)

        assert await get("/object_info") == (200, dict(catalog()))
        assert await get("/api/object_info/KSampler") == (200, {"KSampler": catalog()["KSampler"]})
        assert await get("/object_info/Nope") == (200, {})
        assert await get("/models") == (200, list(MODEL_FOLDERS))
        assert await get("/models/checkpoints") == (200, FILES["CheckpointLoaderSimple"][1])
        assert await get("/models/loras") == (200, [])
        assert (await get("/models/nope"))[0] == 404
    await engine.stop()
