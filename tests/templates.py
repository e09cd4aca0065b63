"""ComfyUI's official templates, as the package `comfyui-workflow-templates-json` brings them: workflows that people really open."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).with_name("recordings")
FILES = (".safetensors", ".png", ".jpg", ".jpeg", ".webp", ".mp4", ".mp3", ".wav", ".flac", ".pth", ".glb")
PAGE_ONLY = {"Note", "MarkdownNote", "Reroute", "PrimitiveNode"}  # no server has these classes


@cache
def templates() -> dict[str, dict[str, Any]]:
    """All templates in UI format by name; not to be changed."""
    found = find_spec("comfyui_workflow_templates_json")
    assert found is not None, "comfyui-workflow-templates-json is not installed: it is in the dev group"
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "templates"
    read = {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}
    return {name: data for name, data in read.items() if isinstance(data, dict) and isinstance(data.get("nodes"), list)}


@cache
def object_info() -> dict[str, Any]:
    """The recorded catalog of a real 0.3.64: 383 classes, few files."""
    found: dict[str, Any] = json.loads((RECORDINGS / "object_info-0.3.64.json").read_text(encoding="utf-8"))
    return found


def classes(ui: dict[str, Any]) -> set[str]:
    """The classes that a server needs for it, muted and bypassed nodes included."""
    inside = ui.get("definitions", {}).get("subgraphs", [])
    used = {node["type"] for sheet in [ui, *inside] for node in sheet["nodes"]}
    return used - {sheet["id"] for sheet in inside} - PAGE_ONLY


def complete(known: dict[str, Any]) -> list[str]:
    """Names of the templates of which a server has every class."""
    return [name for name, ui in templates().items() if classes(ui) <= known.keys()]
