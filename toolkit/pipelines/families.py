"""What each model family needs, as data with its source, and the choice of files from what a server has.

A family is recognised by its nodes and by file names. Knows no request: image.py and video.py read these values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from toolkit.errors import ModelUnknown, NodeUnknown, WorkflowInvalid
from toolkit.graph import Api, NodeCatalog, offer, validate


@dataclass(frozen=True, slots=True)
class Built:
    """A graph ready to be sent, what it is made of, and what was rounded or left out."""

    graph: Api
    recipe: Mapping[str, Any]
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file a family needs: where it belongs below `models/`, and which names fit."""

    folder: str
    node: str
    input: str
    pattern: str
    example: str

    @property
    def advice(self) -> str:
        """What to put where."""
        return f"Put e.g. {self.example} into models/{self.folder} of the server."


@dataclass(frozen=True, slots=True)
class Settings:
    """What a preset decides where the request does not."""

    steps: int
    width: int
    height: int
    frames: int = 1


@dataclass(frozen=True, slots=True)
class Family:
    """One model family: files, sampler defaults, sizes in pixels, quality words, and the source of these facts."""

    name: str
    title: str
    source: str
    files: Sequence[ModelFile]
    presets: Mapping[str, Settings]
    sampler: str
    scheduler: str
    cfg: float
    multiple: int
    quality: str = ""
    negative: str = ""
    fps: float | None = None
    frame_step: int = 1
    shift: float | None = None
    aspects: Mapping[str, tuple[int, int]] = field(default_factory=dict)


CHECKPOINT = ModelFile("checkpoints", "CheckpointLoaderSimple", "ckpt_name", r"xl|illustrious|noob|animagine|pony|wai", "animagine-xl-4.0.safetensors")

SDXL = Family(
    "sdxl",
    "SDXL checkpoint",
    "template image_sdxl_simple of comfyui-workflow-templates-json 0.1.123; sizes: SDXL report, appendix I",
    (CHECKPOINT,),
    {"draft": Settings(12, 640, 960), "standard": Settings(25, 832, 1216), "high": Settings(40, 832, 1216)},
    "dpmpp_2m",
    "karras",
    7.0,
    multiple=8,
    quality="masterpiece, best quality",
    negative="worst quality, low quality, bad anatomy, bad hands, watermark, signature",
    aspects={
        "square": (1024, 1024), "portrait": (832, 1216), "landscape": (1216, 832), "wide": (1344, 768), "tall": (768, 1344),
        "1:1": (1024, 1024), "2:3": (832, 1216), "3:2": (1216, 832), "3:4": (896, 1152), "4:3": (1152, 896), "16:9": (1344, 768), "9:16": (768, 1344),
    },
)  # fmt: skip

WAN22_5B = Family(
    "wan22_5b",
    "Wan 2.2 5B",
    "template video_wan2_2_5B_ti2v of comfyui-workflow-templates-json 0.1.123 (20 steps, cfg 5, uni_pc/simple, shift 8, 24 fps)",
    (
        ModelFile("diffusion_models", "UNETLoader", "unet_name", r"wan.*2[._]2.*5b", "wan2.2_ti2v_5B_fp16.safetensors"),
        ModelFile("text_encoders", "CLIPLoader", "clip_name", r"umt5", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"),
        ModelFile("vae", "VAELoader", "vae_name", r"wan.*2[._]2.*vae", "wan2.2_vae.safetensors"),
    ),
    {"draft": Settings(12, 640, 352, 33), "standard": Settings(20, 832, 480, 49), "high": Settings(30, 1280, 704, 121)},
    "uni_pc",
    "simple",
    5.0,
    multiple=32,
    negative="static, blurry, worst quality, low quality, deformed, extra limbs, subtitles, watermark",
    fps=24.0,
    frame_step=4,
    shift=8.0,
)


def _normal(name: str) -> str:
    return re.sub(r"[\s_\-.]+", "", name.replace("\\", "/").lower())


def choose(file: ModelFile, catalog: NodeCatalog, asked: str | None = None) -> str:
    """The server's file for a need: the asked one by any unambiguous part of its name, else the first that fits the pattern.

    Raises:
        NodeUnknown: the server lacks the loader. ModelUnknown: nothing fits, with the nearest names or where the file belongs.
    """
    if file.node not in catalog:
        raise NodeUnknown(f"The server has no node {file.node}.", hint="Update ComfyUI.")
    names = list(catalog.choices(file.node, file.input))
    if asked is not None:
        return _asked(asked, names, file)
    fitting = [name for name in names if re.search(file.pattern, name, re.IGNORECASE)]
    if fitting:
        return fitting[0]
    if names and file is CHECKPOINT:
        return names[0]
    raise ModelUnknown(f"The server has no {file.folder} file that fits.", hint=file.advice, field="model")


def _asked(asked: str, names: Sequence[str], file: ModelFile) -> str:
    exact = [name for name in names if name in (asked, asked.replace("/", "\\"), asked.replace("\\", "/"))]
    found = exact or [name for name in names if _normal(asked) in _normal(name)]
    if not found:
        hint = offer(asked, names) if names else file.advice
        raise ModelUnknown(f"The server has no model '{asked}' in {file.folder}.", hint=hint, field="model")
    if len(found) > 1:  # a whole name wins over names it is a part of
        found = [name for name in found if _normal(name.rsplit(".", 1)[0]) == _normal(asked)] or found
    if len(found) > 1:
        raise ModelUnknown(f"'{asked}' fits several models: {', '.join(found[:6])}.", hint="Give more of the name.", field="model")
    return found[0]


def choose_all(family: Family, catalog: NodeCatalog, asked: str | None) -> list[str]:
    """The server's files for a family, in its order; everything that is missing is said at once.

    Raises:
        ModelUnknown: naming each missing file and where it belongs.
    """
    chosen: list[str] = []
    missing: list[str] = []
    for place, file in enumerate(family.files):
        try:
            chosen.append(choose(file, catalog, asked if place == 0 else None))
        except ModelUnknown as error:
            if asked is not None and place == 0 and catalog.choices(file.node, file.input):
                raise
            missing.append(error.hint or str(error))
    if missing:
        kind = "clips" if family.fps else "pictures"
        raise ModelUnknown(f"The server cannot make {kind} yet: it has no {family.title} files.", faults=missing, hint=" ".join(missing), field="model")
    return chosen


def with_quality(prompt: str, family: Family, wanted: bool) -> str:
    """The prompt with the family's quality words in front, unless it has them or they are not wanted."""
    if not wanted or not family.quality or family.quality.lower() in prompt.lower():
        return prompt
    return f"{family.quality}, {prompt}"


def rounded(value: int, multiple: int) -> int:
    """The nearest multiple, at least one."""
    return max(multiple, round(value / multiple) * multiple)


def refuse(graph: Mapping[str, Any], catalog: NodeCatalog) -> None:
    """Raise with all faults of a graph at once, so that nothing is sent that the server would refuse."""
    faults = validate(graph, catalog)
    if not faults:
        return
    lines = [str(fault) for fault in faults]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    kinds = {fault.kind for fault in faults}
    if kinds == {"unknown_node"}:
        names = sorted({str(fault.value) for fault in faults})
        raise NodeUnknown(f"The server lacks {', '.join(names)}.", faults=lines, hint=faults[0].hint)
    _raise(ModelUnknown if kinds == {"not_in_list"} else WorkflowInvalid, f"{lines[0]}{more}", lines)


def _raise(kind: type[WorkflowInvalid], message: str, faults: Sequence[str]) -> NoReturn:
    raise kind(message, faults=faults)
