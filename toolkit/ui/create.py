"""The form of the Create tab: what one sees at once, what is folded away, and the sentence that says what a press would do.

Owns the fields and where they stand; each is called as in a request (form.py), and its element too, so that a refusal finds its field.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import gradio as gr
from gradio.components import Component

from toolkit.errors import RequestInvalid, ToolkitError
from toolkit.requests import ImageRef, ImageRequest, VideoRequest
from toolkit.studio import Studio
from toolkit.ui import cards
from toolkit.ui.events import QUIET, plain, visitor_of
from toolkit.ui.form import AS_PRESET, CLIP, KEYFRAME, KINDS, OWN_SIZE, PICTURE, PRESETS, SIZES, request_of
from toolkit.visitors import THE_OWNER, Visitor

SETTLE_S = 0.3  # somebody who types is not planned for at each letter
EXAMPLES = {
    "Shrine at dusk": "1girl, silver hair, fox ears, red scarf, standing before a shrine at dusk, paper lanterns",
    "Rainy street": "1girl, short black hair, transparent umbrella, city street at night, rain, neon signs reflected in puddles",
    "By the sea": "1boy, blond hair, white shirt, sitting on a pier, summer sea, towering clouds, seagulls",
    "Cherry wind": "1girl, long hair, school uniform, cherry trees, petals in the wind, smiling",
}
BEST = ("The best the server has", "")
PICTURES = {"image": "Picture to begin with", "mask": "Mask: white is made anew", "last_image": "Picture to end with"}


class Making:
    """What Create does; each can be called without a browser."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._kept: Callable[[str], ImageRef] = lru_cache(64)(studio.upload)  # an upload's path holds its hash

    def submit(self, values: Mapping[str, Any], visitor: Visitor = THE_OWNER) -> tuple[str | None, ToolkitError | None]:
        """Submit what the form asks for: the job's id and no error, or no id and why not."""
        try:
            return self._studio.submit(self._request(values), origin="page", person=visitor.person).id, None
        except ToolkitError as error:
            return None, error

    def plan(self, values: Mapping[str, Any], visitor: Visitor = THE_OWNER) -> tuple[str, ToolkitError | None]:
        """What a press would do, in a sentence, or why it would not; nothing while nothing is asked for."""
        if not str(values.get("prompt") or "").strip():
            return "", None
        try:
            plan = self._studio.plan(self._request(values), person=visitor.only, look=False)
        except ToolkitError as error:
            return "", error
        return (plan.sentence, None) if not plan.faults else ("", RequestInvalid(" ".join(plan.faults)))

    def _request(self, values: Mapping[str, Any]) -> ImageRequest | VideoRequest:
        return request_of({name: self._kept(value) if name in PICTURES and value else value for name, value in values.items()})

    def files(self, folders: tuple[str, ...]) -> list[str]:
        """The names of files that the servers have in these folders."""
        found = [self._studio._servers.models(address) for address in self._studio._servers.addresses]
        return list(dict.fromkeys(name for models in found for folder in folders for name in models.get(folder, ())))


@dataclass(frozen=True)
class Form:
    """The parts that the rest of the page wires."""

    fields: dict[str, Component]
    create: gr.Button
    plan: gr.HTML
    refusal: gr.HTML
    lock: gr.Button


def build_form() -> Form:
    """The fields by the name they have in a request, and what stands around Create."""
    kind = _choice(KINDS, PICTURE, "Picture or clip", "kind", shown=False)
    fields: dict[str, Component] = {"kind": kind}
    fields["prompt"] = gr.Textbox(
        label="What do you want to see?", placeholder="1girl, silver hair, cherry trees, evening light", lines=4, max_lines=10, elem_id="prompt"
    )
    with gr.Row(elem_id="examples", elem_classes="chips"):
        for name, words in EXAMPLES.items():
            gr.Button(name, size="sm", min_width=0, scale=0).click(partial(str, words), None, fields["prompt"], **QUIET, queue=False)
    with gr.Column(visible=False) as then:
        fields["motion"] = gr.Textbox(label="What happens in the clip?", placeholder="empty: the words above", lines=2, max_lines=6, elem_id="motion")
    with gr.Row(visible=False) as clip:
        fields["seconds"] = _number("Length in seconds", "seconds", "as the quality says")
    fields["preset"] = _choice(PRESETS, "standard", "Quality", "preset")
    with gr.Accordion("Begin with a picture", open=False, elem_classes="fold"):
        stills, lasts = _pictures(fields)
    with gr.Accordion("Leave out (negative prompt)", open=False, elem_classes="fold"):
        fields["negative_prompt"] = gr.Textbox(
            label="Leave out",
            show_label=False,
            container=False,
            placeholder="empty: what the model's family usually avoids",
            lines=2,
            elem_id="negative_prompt",
        )
    with gr.Accordion("More", open=False, elem_id="more", elem_classes="fold"):
        count, length, lock = _more(fields)
    kind.change(_fields_of_kind, kind, [clip, length, lasts, then, stills, count], **QUIET, queue=False)
    plan, create, refusal = plain("", "plan"), gr.Button("Create", variant="primary", size="lg", elem_id="create", elem_classes="create"), plain("", "refusal")
    return Form(fields, create, plan, refusal, lock)


def _pictures(fields: dict[str, Component]) -> tuple[gr.Column, gr.Column]:
    """Fields of pictures: of the first what only pictures have, of the second what only clips have."""
    fields["image"] = picture_field(PICTURES["image"], "image", height=150)
    with gr.Column() as stills:
        fields["mask"] = picture_field(PICTURES["mask"], "mask", height=150)
        fields["denoise"] = _number("How much of it changes", "denoise", "0 to 1; empty: usual")
    with gr.Column(visible=False) as lasts:
        fields["last_image"] = picture_field(PICTURES["last_image"], "last_image", height=150)
    return stills, lasts


def _more(fields: dict[str, Component]) -> tuple[gr.Column, gr.Row, gr.Button]:
    """The folded fields; of them what only pictures have, what only clips have, and the button that locks a seed."""
    fields["size"] = _choice(SIZES, AS_PRESET, "Shape", "size")
    with gr.Row(visible=False) as own:
        fields |= {"width": _number("Width", "width", "pixels"), "height": _number("Height", "height", "pixels")}
    fields["size"].change(lambda chosen: gr.update(visible=chosen == OWN_SIZE), fields["size"], own, **QUIET, queue=False)  # type: ignore[attr-defined]
    with gr.Row(elem_id="seed-row", elem_classes="chips"):
        fields["seed"] = _number("Seed", "seed", "a new one")
        lock = gr.Button("Keep the one shown", size="sm", min_width=0, scale=0, elem_id="lock")
        gr.Button("New each time", size="sm", min_width=0, scale=0, elem_id="dice").click(str, None, fields["seed"], **QUIET, queue=False)
    fields["model"] = gr.Dropdown([BEST], value="", label="Model", allow_custom_value=True, elem_id="model")
    with gr.Row():
        fields["lora"] = gr.Dropdown([], value=[], multiselect=True, label="LoRAs", allow_custom_value=True, min_width=200, elem_id="lora")
        fields["lora_strength"] = _number("Their strength", "lora_strength", "1")
    with gr.Row():
        fields |= {"steps": _number("Steps", "steps"), "cfg": _number("CFG", "cfg")}
    with gr.Column() as count:
        fields["batch_size"] = _number("Pictures at once", "batch_size", "1; all in the server's memory together")
    with gr.Row(visible=False) as length:
        fields |= {"frames": _number("Frames", "frames"), "fps": _number("Frames a second", "fps")}
    return count, length, lock


def _choice(choices: list[tuple[str, str]], value: str, label: str, name: str, *, shown: bool = True) -> gr.Radio:
    return gr.Radio(choices, value=value, label=label, show_label=shown, container=shown, elem_id=name)


def picture_field(label: str, elem_id: str, **about: Any) -> gr.Image:
    """A picture as it was uploaded, gradio having seen to it that it is one of its uploads: it is read where its size is checked first."""
    made = gr.Image(label=label, type="filepath", sources=["upload", "clipboard"], elem_id=elem_id, buttons=[], **about)
    made.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign]
    return made


def _number(label: str, name: str, placeholder: str = "usual") -> gr.Textbox:
    """A number as text: empty is a meaning of its own, and gradio's number field shows it as 0; seeds are beyond what JavaScript counts exactly."""
    return gr.Textbox(label=label, placeholder=placeholder, max_lines=1, min_width=110, elem_id=name)


def _fields_of_kind(kind: str) -> list[Any]:
    """What belongs to clips, to stills that become clips, and to pictures comes and goes."""
    is_clip, is_still = kind in (CLIP, KEYFRAME), kind != CLIP
    return [gr.update(visible=seen) for seen in (is_clip, is_clip, kind == CLIP, kind == KEYFRAME, is_still, is_still)]


def wire_plan(making: Making, form: Form) -> None:
    """Say above Create what it would do, whenever a field has changed: one look at a time, the last change always."""
    watched = [field for name, field in form.fields.items() if name != "motion"]

    async def look(values: dict[Component, Any], request: gr.Request) -> tuple[str, str]:
        await asyncio.sleep(SETTLE_S)
        said, error = await asyncio.to_thread(making.plan, {name: values[field] for name, field in form.fields.items()}, visitor_of(request))
        return cards.plan(said), cards.refusal(error)

    changes: list[Any] = [field.change for field in watched]  # type: ignore[attr-defined]
    gr.on(changes, look, set(form.fields.values()), [form.plan, form.refusal], trigger_mode="always_last", **QUIET)


def wire_names(page: gr.Blocks, making: Making, form: Form) -> None:
    """Offer the servers' models and LoRAs once the page is open."""

    def names() -> tuple[Any, Any]:
        models = [BEST, *((name, name) for name in making.files(("checkpoints", "diffusion_models")))]
        return gr.update(choices=models), gr.update(choices=making.files(("loras",)))

    page.load(names, None, [form.fields["model"], form.fields["lora"]], **QUIET)
