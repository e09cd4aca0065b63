"""What each model family needs, as data with its source: files, graph, sizes, settings, quality words.

Owns the table of families and which file name belongs to which. The graphs are the official templates (graphs/*.json), so a family is a file
and a row here. Knows no request and no server: choosing.py holds these rows against a catalog, image.py and video.py read them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from toolkit.graph import Api

GRAPHS = Path(__file__).with_name("graphs")
HUB = "https://huggingface.co"
LOADERS: Mapping[str, tuple[str, str]] = {  # which node offers the files of a folder
    "checkpoints": ("CheckpointLoaderSimple", "ckpt_name"),
    "diffusion_models": ("UNETLoader", "unet_name"),
    "text_encoders": ("CLIPLoader", "clip_name"),
    "vae": ("VAELoader", "vae_name"),
    "loras": ("LoraLoader", "lora_name"),
    "upscale_models": ("UpscaleModelLoader", "model_name"),
    "latent_upscale_models": ("LatentUpscaleModelLoader", "model_name"),
}


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file a family needs: its usual name, the folder below `models/`, where it can be had, and which other names fit."""

    name: str
    folder: str
    source: str = ""
    pattern: str = ""
    size_bytes: int | None = None

    @property
    def advice(self) -> str:
        """What to put where."""
        return f"Put e.g. {self.name} into models/{self.folder} of the server" + (f" ({self.source})." if self.source else ".")

    def fits(self, name: str) -> bool:
        """Whether a file of the server can take this place."""
        return re.search(self.pattern or re.escape(self.name.rsplit(".", 1)[0]), name, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Preset:
    """What a preset decides where the request does not; sizes in pixels."""

    steps: int
    width: int
    height: int
    frames: int = 1


@dataclass(frozen=True, slots=True)
class Fast:
    """LoRAs with which a family needs few steps: one for each of its models, used by the preset draft where the server has them."""

    files: Sequence[ModelFile]
    steps: int
    cfg: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """One model family; what stays None is as the template has it."""

    name: str
    title: str
    kind: Literal["image", "video"]
    graph: str
    source: str
    files: Sequence[ModelFile]
    presets: Mapping[str, Preset]
    multiple: int = 8
    sampler: str | None = None
    scheduler: str | None = None
    cfg: float | None = None
    quality: str = ""
    prefix: str = ""
    negative: str | None = None
    aspects: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    clip_skip: int | None = None
    fps: float | None = None
    frame_step: int = 4
    latents: float = 1.0  # sides of its first latents, as a part of the clip's: it enlarges them itself
    pictures: int = 0  # input pictures its graph asks for: 1 the first frame, 2 the last one too
    takes_picture: bool = False  # a clip's graph that can do with a first frame and without
    fast: Fast | None = None

    def template(self) -> Api:
        """A fresh copy of its graph, in API format."""
        graph: Api = json.loads(_text(self.graph))["graph"]
        return graph

    @property
    def area(self) -> int:
        """Pixels of the size it was trained on."""
        standard = self.presets["standard"]
        return standard.width * standard.height


@cache
def _text(graph: str) -> str:
    return (GRAPHS / f"{graph}.json").read_text(encoding="utf-8")


def _checkpoint(name: str, pattern: str, source: str = "") -> tuple[ModelFile, ...]:
    return (ModelFile(name, "checkpoints", source, pattern),)


def _pictures(draft: int, standard: int, high: int, size: tuple[int, int] = (832, 1216)) -> dict[str, Preset]:
    """Presets of pictures: a draft has three quarters of the sides."""
    small = (size[0] * 3 // 4 // 64 * 64, size[1] * 3 // 4 // 64 * 64)
    return {"draft": Preset(draft, *small), "standard": Preset(standard, *size), "high": Preset(high, *size)}


def _shapes(square: int, two: tuple[int, int], three: tuple[int, int], wide: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Sizes by name: square, 2:3, 3:4 and 9:16, each upright and across."""
    turned = {"portrait": two, "2:3": two, "3:4": three, "tall": wide, "9:16": wide}
    across = {"landscape": two, "3:2": two, "4:3": three, "wide": wide, "16:9": wide}
    return {"square": (square, square), "1:1": (square, square), **turned, **{name: (height, width) for name, (width, height) in across.items()}}


# ---- pictures, in the order in which a server's best is chosen ----------------------------------------------------------------

XL_SHAPES = _shapes(1024, (832, 1216), (896, 1152), (768, 1344))  # SDXL report, appendix I
XL_NEGATIVE = "worst quality, low quality, bad anatomy, bad hands, watermark, signature"
XL_TEMPLATE = "template image_sdxl_simple of comfyui-workflow-templates-json 0.1.123"
QWEN_VAE = ModelFile("qwen_image_vae.safetensors", "vae", f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI", r"qwen.?image.?vae")

ILLUSTRIOUS = Family(
    "illustrious", "Illustrious checkpoint", "image", "sdxl", f"{XL_TEMPLATE}; settings: model card of Illustrious-XL v1.0 and v2.0",
    _checkpoint("Illustrious-XL-v2.0.safetensors", r"illustr|\bill?_?xl|wai|hassaku|prefect|ntr.?mix|obsession", f"{HUB}/OnomaAIResearch/Illustrious-XL-v2.0"),
    _pictures(16, 28, 40), sampler="euler_ancestral", scheduler="normal", cfg=6.0, quality="masterpiece, best quality", negative=XL_NEGATIVE,
    aspects=XL_SHAPES,
)  # fmt: skip
ANIMA = Family(
    "anima", "Anima", "image", "anima", "template image_anima_base_v1 of comfyui-workflow-templates-json 0.1.123",
    (
        ModelFile("anima-base-v1.0.safetensors", "diffusion_models", f"{HUB}/circlestone-labs/Anima", r"anima(?!gine)"),
        ModelFile("qwen_3_06b_base.safetensors", "text_encoders", f"{HUB}/circlestone-labs/Anima", r"qwen.?3.?0\.?6b"),
        QWEN_VAE,
    ),
    _pictures(20, 30, 50), multiple=16, quality="masterpiece, best quality, score_7, safe", aspects=XL_SHAPES,
    fast=Fast((ModelFile("anima-turbo-lora-v0.2.safetensors", "loras", f"{HUB}/circlestone-labs/Anima-Official-LoRAs", r"anima.?turbo"),), 8),
)  # fmt: skip
NOOBAI = Family(
    "noobai", "NoobAI checkpoint", "image", "sdxl", f"{XL_TEMPLATE}; settings: model card of NoobAI-XL",
    _checkpoint("NoobAI-XL-v1.1.safetensors", r"noob", f"{HUB}/Laxhar/noobai-XL-1.1"),
    _pictures(16, 28, 40), sampler="euler_ancestral", scheduler="normal", cfg=5.0, quality="masterpiece, best quality, newest, absurdres, highres",
    negative="worst quality, old, early, low quality, lowres, signature, username, logo, bad hands, mutated hands", aspects=XL_SHAPES,
)  # fmt: skip
ANIMAGINE = Family(
    "animagine", "Animagine checkpoint", "image", "sdxl", f"{XL_TEMPLATE}; settings: model card of Animagine XL 4.0",
    _checkpoint("animagine-xl-4.0-opt.safetensors", r"animagine", f"{HUB}/cagliostrolab/animagine-xl-4.0"),
    _pictures(16, 28, 40), sampler="euler_ancestral", scheduler="normal", cfg=5.0, quality="masterpiece, high score, great score, absurdres",
    negative="lowres, bad anatomy, bad hands, text, error, missing finger, extra digits, fewer digits, cropped, worst quality, low quality, low score, "
    "bad score, average score, signature, watermark, username, blurry",
    aspects=XL_SHAPES,
)  # fmt: skip
PONY = Family(
    "pony", "Pony checkpoint", "image", "sdxl", f"{XL_TEMPLATE}; settings: model card of Pony Diffusion V6 XL (clip skip 2)",
    _checkpoint("ponyDiffusionV6XL.safetensors", r"pony|autismmix", "https://civitai.com/models/257749"),
    _pictures(16, 25, 40), sampler="euler_ancestral", scheduler="normal", cfg=7.0, quality="score_9, score_8_up, score_7_up, source_anime",
    negative="score_6, score_5, score_4, worst quality, low quality", aspects=XL_SHAPES, clip_skip=2,
)  # fmt: skip
SDXL = Family(
    "sdxl", "SDXL checkpoint", "image", "sdxl", f"{XL_TEMPLATE}; sizes: SDXL report, appendix I",
    _checkpoint("sd_xl_base_1.0.safetensors", r"xl", f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0"),
    _pictures(12, 25, 40), quality="masterpiece, best quality", negative=XL_NEGATIVE, aspects=XL_SHAPES,
)  # fmt: skip
NETAYUME = Family(
    "netayume", "NetaYume Lumina", "image", "netayume", "template image_netayume_lumina_t2i of comfyui-workflow-templates-json 0.1.123",
    _checkpoint("NetaYumev35_pretrained_all_in_one.safetensors", r"neta.?(yume|lumina)|lumina", f"{HUB}/duongve/NetaYume-Lumina-Image-2.0"),
    _pictures(20, 30, 40, (1024, 1024)), multiple=16, aspects=XL_SHAPES,
    prefix="You are an assistant designed to generate high quality anime images based on textual prompts. <Prompt Start> ",
)  # fmt: skip
Z_IMAGE_TURBO = Family(
    "z_image_turbo", "Z-Image Turbo", "image", "z_image_turbo", "template image_z_image_turbo of comfyui-workflow-templates-json 0.1.123",
    (
        ModelFile("z_image_turbo_bf16.safetensors", "diffusion_models", f"{HUB}/Comfy-Org/z_image_turbo", r"z.?image.*turbo"),
        ModelFile("qwen_3_4b.safetensors", "text_encoders", f"{HUB}/Comfy-Org/z_image_turbo", r"qwen.?3.?4b"),
        ModelFile("ae.safetensors", "vae", f"{HUB}/Comfy-Org/z_image_turbo", r"(^|[\\/])ae\.|flux.*vae"),
    ),
    _pictures(6, 8, 10, (1024, 1024)), multiple=16, aspects=XL_SHAPES,
)  # fmt: skip
QWEN_IMAGE = Family(
    "qwen_image", "Qwen-Image", "image", "qwen_image", "template image_qwen_Image_2512 of comfyui-workflow-templates-json 0.1.123, its note for sizes",
    (
        ModelFile("qwen_image_2512_fp8_e4m3fn.safetensors", "diffusion_models", f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI", r"qwen.?image(?!.*(edit|layer))"),
        ModelFile("qwen_2.5_vl_7b_fp8_scaled.safetensors", "text_encoders", f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI", r"qwen.?2\.?5.?vl"),
        QWEN_VAE,
    ),
    _pictures(25, 50, 50, (1328, 1328)), multiple=16, aspects=_shapes(1328, (1056, 1584), (1104, 1472), (928, 1664)),
    fast=Fast(
        (ModelFile("Qwen-Image-2512-Lightning-4steps-V1.0-fp32.safetensors", "loras", f"{HUB}/lightx2v", r"qwen.*lightning.*4step"),), 4
    ),
)  # fmt: skip
SD15 = Family(
    "sd15", "SD 1.5 checkpoint", "image", "sdxl", f"{XL_TEMPLATE} with the sizes of SD 1.5",
    _checkpoint(
        "v1-5-pruned-emaonly-fp16.safetensors", r"sd.?1\.?5|v1-5|anything.?v|counterfeit|meina|abyssorange|aom\d|pastel",
        f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive",
    ),
    _pictures(15, 25, 40, (512, 768)), sampler="euler_ancestral", scheduler="normal", cfg=7.0, quality="masterpiece, best quality", negative=XL_NEGATIVE,
    aspects=_shapes(512, (512, 768), (512, 680), (432, 768)),
)  # fmt: skip

# ---- clips -------------------------------------------------------------------------------------------------------------------

WAN = f"{HUB}/Comfy-Org/Wan_2.2_ComfyUI_Repackaged"
UMT5 = ModelFile("umt5_xxl_fp8_e4m3fn_scaled.safetensors", "text_encoders", f"{HUB}/Comfy-Org/Wan_2.1_ComfyUI_repackaged", r"umt5")
WAN_VAE = ModelFile("wan_2.1_vae.safetensors", "vae", WAN, r"wan.?2[._]?1.*vae")
WAN_14B = {"draft": Preset(12, 640, 352, 49), "standard": Preset(20, 832, 480, 81), "high": Preset(20, 1280, 720, 81)}
WAN_SHAPES = {"square": (640, 640), "1:1": (640, 640), "landscape": (832, 480), "16:9": (832, 480), "portrait": (480, 832), "9:16": (480, 832)}


def _experts(what: str, loras: str) -> tuple[tuple[ModelFile, ...], Fast]:
    """The files of a Wan 2.2 14B: an expert for the noisy steps, one for the rest, and the LoRAs for four steps."""
    noise = ("high", "low")
    models = [ModelFile(f"wan2.2_{what}_{n}_noise_14B_fp8_scaled.safetensors", "diffusion_models", WAN, rf"wan.?2[._]?2.*{what}.*{n}") for n in noise]
    fast = [ModelFile(f"wan2.2_{what}_lightx2v_4steps_lora_{loras}_{n}_noise.safetensors", "loras", WAN, rf"{what}.*(lightx2v|4.?step).*{n}") for n in noise]
    return (*models, UMT5, WAN_VAE), Fast(fast, 4)


T2V_FILES, T2V_FAST = _experts("t2v", "v1.1")
I2V_FILES, I2V_FAST = _experts("i2v", "v1")
WAN22_14B_T2V = Family(
    "wan22_14b_t2v", "Wan 2.2 14B text to clip", "video", "wan22_14b_t2v", "template video_wan2_2_14B_t2v of comfyui-workflow-templates-json 0.1.123",
    T2V_FILES, WAN_14B, multiple=16, fps=16.0, aspects=WAN_SHAPES, fast=T2V_FAST,
)  # fmt: skip
WAN22_14B_I2V = Family(
    "wan22_14b_i2v", "Wan 2.2 14B picture to clip", "video", "wan22_14b_i2v", "template video_wan2_2_14B_i2v of comfyui-workflow-templates-json 0.1.123",
    I2V_FILES, WAN_14B, multiple=16, fps=16.0, aspects=WAN_SHAPES, fast=I2V_FAST, pictures=1,
)  # fmt: skip
WAN22_14B_FLF2V = Family(
    "wan22_14b_flf2v", "Wan 2.2 14B first and last frame", "video", "wan22_14b_flf2v",
    "template video_wan2_2_14B_flf2v of comfyui-workflow-templates-json 0.1.123",
    I2V_FILES, WAN_14B, multiple=16, fps=16.0, aspects=WAN_SHAPES, fast=I2V_FAST, pictures=2,
)  # fmt: skip
WAN22_5B = Family(
    "wan22_5b", "Wan 2.2 5B", "video", "wan22_5b", "template video_wan2_2_5B_ti2v of comfyui-workflow-templates-json 0.1.123",
    (
        ModelFile("wan2.2_ti2v_5B_fp16.safetensors", "diffusion_models", WAN, r"wan.*2[._]?2.*5b"),
        UMT5,
        ModelFile("wan2.2_vae.safetensors", "vae", WAN, r"wan.?2[._]?2.*vae"),
    ),
    {"draft": Preset(12, 640, 352, 33), "standard": Preset(20, 832, 480, 49), "high": Preset(30, 1280, 704, 121)},
    multiple=32, fps=24.0, aspects={**WAN_SHAPES, "wide": (1280, 704), "tall": (704, 1280)}, takes_picture=True,
)  # fmt: skip

LTX = f"{HUB}/Lightricks/LTX-2.3-fp8"
LTX_SHAPES = {"square": (960, 960), "1:1": (960, 960), "landscape": (1280, 704), "16:9": (1280, 704), "portrait": (704, 1280), "9:16": (704, 1280)}
LTX_PRESETS = {"draft": Preset(11, 768, 448, 49), "standard": Preset(11, 1280, 704, 121), "high": Preset(11, 1920, 1088, 121)}
LTX_NEGATIVE = "worst quality, blurry, flickering, jittery movement, distorted, extra limbs, watermark, text"  # the templates' own forbids cartoons
LTX_DEV = ModelFile("ltx-2.3-22b-dev-fp8.safetensors", "checkpoints", LTX, r"ltx.?2(?!.*distill)")
GEMMA = ModelFile("gemma_3_12B_it_fp4_mixed.safetensors", "text_encoders", f"{HUB}/Comfy-Org/ltx-2", r"gemma.?3.*12b")
LTX_TWO_PASSES = (
    LTX_DEV,
    GEMMA,
    ModelFile("ltx_2.3_22b_distilled_1.1_lora_dynamic_fro09_avg_rank_111_bf16.safetensors", "loras", f"{HUB}/Comfy-Org/ltx-2.3", r"ltx.?2.*distill.*lora"),
    ModelFile("ltx-2.3-spatial-upscaler-x2-1.1.safetensors", "latent_upscale_models", f"{HUB}/Lightricks/LTX-2.3", r"ltx.?2.*spatial.*x2"),
)
LTX23_T2V = Family(
    "ltx23_t2v", "LTX 2.3 text to clip", "video", "ltx23_t2v", "template video_ltx2_3_t2v of comfyui-workflow-templates-json 0.1.123",
    LTX_TWO_PASSES, LTX_PRESETS, multiple=64, fps=25.0, frame_step=8, latents=0.5, negative=LTX_NEGATIVE, aspects=LTX_SHAPES,
)  # fmt: skip
LTX23_I2V = Family(
    "ltx23_i2v", "LTX 2.3 picture to clip", "video", "ltx23_i2v", "template video_ltx2_3_i2v of comfyui-workflow-templates-json 0.1.123",
    LTX_TWO_PASSES, LTX_PRESETS, multiple=64, fps=25.0, frame_step=8, latents=0.5, negative=LTX_NEGATIVE, aspects=LTX_SHAPES, pictures=1,
)  # fmt: skip
LTX23_FLF2V = Family(
    "ltx23_flf2v", "LTX 2.3 first and last frame", "video", "ltx23_flf2v", "template video_ltx2_3_flf2v of comfyui-workflow-templates-json 0.1.123",
    (ModelFile("ltx-2.3-22b-distilled-fp8.safetensors", "checkpoints", LTX, r"ltx.?2.*distill"), GEMMA),
    {name: Preset(8, size.width, size.height, size.frames) for name, size in LTX_PRESETS.items()},
    multiple=32, fps=25.0, frame_step=8, negative=LTX_NEGATIVE, aspects=LTX_SHAPES, pictures=2,
)  # fmt: skip

PICTURES = (ILLUSTRIOUS, ANIMA, NOOBAI, ANIMAGINE, NETAYUME, PONY, SDXL, Z_IMAGE_TURBO, QWEN_IMAGE, SD15)
CLIPS = (WAN22_14B_I2V, WAN22_14B_FLF2V, WAN22_14B_T2V, LTX23_I2V, LTX23_FLF2V, LTX23_T2V, WAN22_5B)
FAMILIES = (*PICTURES, *CLIPS)
RECOGNISED = (*CLIPS, NETAYUME, NOOBAI, ANIMAGINE, PONY, SD15, ILLUSTRIOUS, ANIMA, Z_IMAGE_TURBO, QWEN_IMAGE, SDXL)
"""The order in which a file's name is tried: words that stand in few names come first."""


def family_of(name: str, folder: str) -> Family | None:
    """The family that a model file belongs to by its name; None if no word in it is known."""
    return next((family for family in RECOGNISED if family.files[0].folder == folder and family.files[0].fits(name)), None)
