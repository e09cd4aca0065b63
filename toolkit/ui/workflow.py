"""The Workflow tab: a file of the user's becomes a form, one field for each parameter that has a name.

Owns which field a parameter gets and how what was typed becomes a value. Knows no graph: names, limits and faults are the workflow's own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from toolkit.errors import RequestInvalid, ToolkitError
from toolkit.exported import Parameter, Workflow
from toolkit.requests import WorkflowRequest
from toolkit.studio import Studio
from toolkit.ui import cards
from toolkit.ui.create import picture_field
from toolkit.ui.events import plain, visitor_of
from toolkit.visitors import THE_OWNER, Visitor

KINDS = [".json", ".png", ".webp", ".jpg", ".mp4", ".webm", ".mov", ".mkv"]
OTHERS = "others"
INVITATION = "A workflow that ComfyUI saved or exported, or a picture or clip that carries one. Nothing runs before you press Create."
LABELS = {"cfg": "CFG", "vae": "VAE", "fps": "Frames a second", "lora": "LoRA", "lora_strength": "LoRA strength"}
Press = Callable[[list[Any], Callable[..., Any], set[Component], gr.HTML], None]


class WorkflowHandlers:
    """What the tab does with a file; each can be called without a browser."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def read(self, path: str) -> tuple[Workflow | None, ToolkitError | None]:
        """The workflow of a file, or none and why not."""
        try:
            return self._studio.workflow(path), None
        except ToolkitError as error:
            return None, error

    def run(self, path: str, values: Mapping[str, Any], visitor: Visitor = THE_OWNER) -> tuple[str | None, ToolkitError | None]:
        """Submit the workflow with what the form says: the job's id and no error, or no id and why not."""
        try:
            workflow = self._studio.workflow(path)
            changed = workflow.set(**self._changes(workflow, values))
            return self._studio.submit(WorkflowRequest(workflow=changed), origin="page", person=visitor.person).id, None
        except ToolkitError as error:
            return None, error

    def _changes(self, workflow: Workflow, values: Mapping[str, Any]) -> dict[str, Any]:
        """What the form says otherwise than the file; a text is never taken for a file of this machine."""
        said = {name: value for name, value in values.items() if name != OTHERS} | _pairs(str(values.get(OTHERS) or ""))
        changed = dict[str, Any]()
        for name, value in said.items():
            parameter = workflow.parameters.get(name)
            if parameter is not None and _is_picture(parameter) and name in values:
                changed |= {name: self._studio._orders.picture(value).server_name} if value else {}
            elif name == "seed" and value == "":
                changed[name] = random.getrandbits(63)
            elif parameter is None or (value is not None and str(value) != str(parameter.value)):
                changed[name] = value
        return changed


def _pairs(text: str) -> dict[str, str]:
    lines = [line.partition("=") for line in text.splitlines() if line.strip()]
    wrong = next(("".join(line) for line in lines if not line[0].strip() or not line[1]), None)
    if wrong is not None:
        raise RequestInvalid(f"'{wrong[:60]}': write NAME=VALUE, one a line.", field=OTHERS)
    return {name.strip(): value.strip() for name, _, value in lines}


def _is_picture(parameter: Parameter) -> bool:
    return parameter.name.startswith(("image", "mask")) and parameter.input == "image"


def workflow_tab(handlers: WorkflowHandlers, press: Press) -> None:
    """The parts of the tab; `press` wires a button to a submit, as on the rest of the page."""
    file = gr.File(label="Workflow file", show_label=False, file_types=KINDS, height=130, elem_id="workflow-file")

    @gr.render(file, show_progress="hidden")  # type: ignore[untyped-decorator]
    def form(path: str | None) -> None:
        if not path:
            plain(f'<p class="hush">{INVITATION}</p>', "workflow-invitation")
            return
        workflow, said = handlers.read(path)
        if workflow is None:
            plain(cards.refusal(said), "workflow-unread")
            return
        named = [parameter for parameter in workflow.parameters.values() if "." not in parameter.name]
        fields: dict[str, Component] = {}
        for group in (_is_long, _is_number, _is_choice):
            members = [parameter for parameter in named if group(parameter)]
            with gr.Row(visible=bool(members)) if group is not _is_long else gr.Column(visible=bool(members)):
                fields |= {parameter.name: _field(parameter) for parameter in members}
        with gr.Accordion("Any other value", open=not named, elem_classes="fold"):
            placeholder = next((f"{name}={parameter.value}" for name, parameter in workflow.parameters.items() if "." in name), "3.cfg=5")
            fields[OTHERS] = gr.Textbox(
                show_label=False, container=False, placeholder=f"{placeholder:.60}", lines=2, interactive=True, elem_id="workflow-others"
            )
        plain(cards.remarks(workflow.notes, [str(fault) for fault in workflow.faults]), "workflow-remarks")
        create = gr.Button("Create", variant="primary", size="lg", elem_id="workflow-create", elem_classes="create")
        refusal = plain("", "workflow-refusal")

        def submit(values: dict[Component, Any], request: gr.Request) -> tuple[Any, str]:
            job_id, why = handlers.run(path, {name: values[field] for name, field in fields.items()}, visitor_of(request))
            return (job_id if job_id else gr.skip()), cards.refusal(why)

        press([create.click], submit, set(fields.values()), refusal)


def _is_choice(parameter: Parameter) -> bool:
    return bool(parameter.choices) and not _is_picture(parameter)


def _is_long(parameter: Parameter) -> bool:
    return not _is_choice(parameter) and not _is_number(parameter)


def _is_number(parameter: Parameter) -> bool:
    return isinstance(parameter.value, (int, float)) and not isinstance(parameter.value, bool) and not parameter.choices


def _field(parameter: Parameter) -> Component:
    """The field that suits a parameter's type and limits."""
    label, elem_id = _label(parameter.name), f"workflow-{parameter.name}"
    if _is_picture(parameter):
        return picture_field(label, elem_id, height=180, interactive=True, placeholder=f"{parameter.value}")
    if _is_choice(parameter):
        known = parameter.value in (parameter.choices or ())
        info = None if known else f"The server has no {parameter.value}: choose another."
        return gr.Dropdown(
            list(parameter.choices or ()), value=parameter.value if known else None, label=label, info=info, min_width=220, interactive=True, elem_id=elem_id
        )
    if isinstance(parameter.value, bool):
        return gr.Checkbox(value=parameter.value, label=label, interactive=True, elem_id=elem_id)
    if _is_number(parameter):
        placeholder = "a new one" if parameter.name == "seed" else _limits(parameter)
        return gr.Textbox(value=str(parameter.value), label=label, placeholder=placeholder, max_lines=1, min_width=130, interactive=True, elem_id=elem_id)
    return gr.Textbox(value=str(parameter.value), label=label, lines=3, max_lines=8, interactive=True, elem_id=elem_id)


def _label(name: str) -> str:
    """A parameter's name as a heading: `lora_strength_2` is LoRA strength 2."""
    plain, _, number = name.rpartition("_") if name.rpartition("_")[2].isdecimal() else (name, "", "")
    return f"{LABELS.get(plain, plain.replace('_', ' ').capitalize())} {number}".strip()


def _limits(parameter: Parameter) -> str:
    ends = [end for end in (parameter.minimum, parameter.maximum) if end is not None]
    return f"{ends[0]:g} to {ends[1]:g}" if len(ends) == 2 else ""
