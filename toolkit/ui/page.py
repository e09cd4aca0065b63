"""The page itself: its parts, where they stand, and what happens when one presses.

Owns layout and wiring. A press submits and returns; following a job is an event of its own without a limit on how many run at once, so
gradio's queue never holds a job. What programs may call is programs.py's; no other event is part of a public API.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from toolkit.errors import JobUnknown, ToolkitError
from toolkit.studio import Studio
from toolkit.ui import cards
from toolkit.ui.form import AS_PRESET, OWN_SIZE, PICTURE_SIZES, PRESETS, SIZES, request_of
from toolkit.ui.live import Live, View, look
from toolkit.ui.programs import program_calls
from toolkit.ui.workflow import Press, WorkflowHandlers, visitor_of, workflow_tab
from toolkit.visitors import THE_OWNER, Visitor

LATEST = 8
REFRESH_S = 3.0
EXAMPLES = {
    "Shrine at dusk": "1girl, silver hair, fox ears, red scarf, standing before a shrine at dusk, paper lanterns",
    "Rainy street": "1girl, short black hair, transparent umbrella, city street at night, rain, neon signs reflected in puddles",
    "By the sea": "1boy, blond hair, white shirt, sitting on a pier, summer sea, towering clouds, seagulls",
    "Cherry wind": "1girl, long hair, school uniform, cherry trees, petals in the wind, smiling",
}
# a press on a job of the list tells which; the list is redrawn often, so the listener sits on what stays
ON_PRESS = """element.addEventListener('click', (event) => {
  const job = event.target.closest('[data-job]');
  if (job) trigger('select', {job: job.dataset.job});
});"""
# on a phone the stage is below the form: go there once the job is on it, since an empty stage is too short to scroll to; stay for a refusal
TO_STAGE = """() => {
  let looks = 0;
  const look = () => {
    if (document.querySelector('#refusal .refusal') || ++looks > 30) return;
    if (document.querySelector('#stage .running')) document.querySelector('#result').scrollIntoView();
    else setTimeout(look, 100);
  };
  if (window.innerWidth <= 800) look();
}"""
# what every event of this page shares: private, unlimited, and without gradio's own spinner over our pictures
QUIET: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}


class Handlers:
    """What the page does when pressed; each can be called without a browser."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._live = Live(studio)

    def create(self, values: Mapping[str, Any], visitor: Visitor = THE_OWNER) -> tuple[str | None, str]:
        """Submit what the form asks for: the job's id and no sentence, or no id and why not."""
        try:
            return self._studio.submit(request_of(values), origin="page", person=visitor.person).id, ""
        except ToolkitError as error:
            return None, str(error)

    async def follow(self, job_id: str | None, page: str, visitor: Visitor = THE_OWNER) -> AsyncIterator[View | None]:
        """Views of the job until it has ended; None when there is nothing to show."""
        try:
            async for view in self._live.follow(_id(job_id), page, visitor.only):
                yield view
        except JobUnknown:  # nothing made yet, or the browser remembers a job of another home
            yield None

    def cancel(self, job_id: str | None, visitor: Visitor = THE_OWNER) -> None:
        """Cancel the job on the stage; one that has ended stays as it is."""
        with contextlib.suppress(JobUnknown):
            self._studio.job(_id(job_id), person=visitor.only).cancel()

    def last_seed(self, job_id: str | None, visitor: Visitor = THE_OWNER) -> str:
        """The seed of the job on the stage, to keep it."""
        try:
            return str(self._studio.job(_id(job_id), person=visitor.only).job.seed)
        except JobUnknown:
            return ""

    def latest(self, visitor: Visitor = THE_OWNER) -> str:
        """The list of the latest jobs."""
        return cards.job_list([look(handle) for handle in self._studio.jobs(person=visitor.only, limit=LATEST)])

    def servers(self) -> str:
        """Which server draws; looks at servers that nobody watches yet."""
        try:
            return cards.server_line(self._studio.servers())
        except ToolkitError as error:
            return cards.sentence(str(error))


def _id(stored: Any) -> str:
    """A job's id as the browser stored it; whatever else is there names no job."""
    return stored if isinstance(stored, str) and stored else "none"


def build_page(studio: Studio) -> gr.Blocks:
    """The page over a studio; mount it with `page_options()`."""
    handlers = Handlers(studio)
    page: gr.Blocks = gr.Blocks(title="anime-toolkit", analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600))
    with page:
        shown = gr.BrowserState(None, storage_key="anime-toolkit-job", secret="not-a-secret-only-an-id")
        with gr.Row(elem_id="top"):
            gr.HTML("<h1>anime-toolkit</h1>", apply_default_css=False, min_width=160, elem_id="brand")
            server = gr.HTML("", apply_default_css=False, elem_id="server")
        with gr.Row(elem_id="work", equal_height=False):
            with gr.Column(scale=5, min_width=320, elem_id="form"), gr.Tabs(elem_id="tabs"):
                with gr.Tab("Create", elem_id="create-tab"):
                    fields, create, refusal, keep = _form()
                with gr.Tab("Workflow", elem_id="workflow-tab"):
                    own = gr.Column()
            with gr.Column(scale=7, min_width=320, elem_id="result"):
                stage = gr.HTML(cards.EMPTY_STAGE, apply_default_css=False, elem_id="stage")
                cancel = gr.Button("Cancel", variant="secondary", visible=False, elem_id="cancel")
        latest = gr.HTML("", apply_default_css=False, elem_id="latest", js_on_load=ON_PRESS)
        press = _presses(handlers, shown, stage, cancel)
        _wire_making(handlers, fields, create, refusal, press)
        with own:
            workflow_tab(WorkflowHandlers(studio), press)

        def stop(job_id: str | None, request: gr.Request) -> None:
            handlers.cancel(job_id, visitor_of(request))

        cancel.click(stop, shown, None, **QUIET)
        _wire_rest(page, handlers, fields["seed"], keep, shown, stage, cancel, latest, server)
    for event in page.fns.values():
        event.api_visibility = "private"  # gr.render has no word for that
    with page:
        program_calls(studio)
    page.queue(default_concurrency_limit=None)
    return page


def _form() -> tuple[dict[str, Component], gr.Button, gr.HTML, gr.Button]:
    """The fields by the name they have in a request, the Create button, the place for refusals, and the button that keeps a seed."""
    kind = gr.Radio(
        [("Picture", "image"), ("Clip", "video")],
        value="image",
        label="Picture or clip",
        show_label=False,
        container=False,
        elem_id="kind",
        elem_classes="segments",
    )
    prompt = gr.Textbox(
        label="What do you want to see?", placeholder="1girl, silver hair, cherry trees, evening light", lines=4, max_lines=10, elem_id="prompt"
    )
    with gr.Row(elem_id="examples"):
        for name, words in EXAMPLES.items():
            example = gr.Button(name, size="sm", min_width=0, scale=0)
            example.click(partial(str, words), None, prompt, **QUIET, queue=False)
    preset = gr.Radio(PRESETS, value="standard", label="Quality", elem_id="preset", elem_classes="cards")
    with gr.Row(visible=False) as clip:
        seconds = _number("Length in seconds", "seconds", "as the quality says")
    fields: dict[str, Component] = {"kind": kind, "prompt": prompt, "preset": preset, "seconds": seconds}
    with gr.Accordion("Leave out (negative prompt)", open=False, elem_id="leave-out"):
        fields["negative_prompt"] = gr.Textbox(
            show_label=False, container=False, placeholder="empty: what the model's family usually avoids", lines=2, elem_id="negative"
        )
    with gr.Accordion("More", open=False, elem_id="more"):
        more, own, length, keep = _more()
    fields |= more
    create = gr.Button("Create", variant="primary", size="lg", elem_id="create")
    refusal = gr.HTML("", apply_default_css=False, elem_id="refusal")
    kind.change(_fields_of_kind, kind, [fields["size"], own, clip, length], **QUIET, queue=False)
    return fields, create, refusal, keep


def _more() -> tuple[dict[str, Component], gr.Row, gr.Row, gr.Button]:
    """The folded fields, the two rows of them that come and go, and the button that keeps a seed."""
    size = gr.Dropdown(PICTURE_SIZES, value=AS_PRESET, label="Size", elem_id="size")
    with gr.Row(visible=False) as own:
        width, height = _number("Width", "width", "pixels"), _number("Height", "height", "pixels")
    with gr.Row(visible=False) as length:
        frames, fps = _number("Frames", "frames"), _number("Frames a second", "fps")
    with gr.Row():
        steps, cfg = _number("Steps", "steps"), _number("CFG", "cfg")
    seed = _number("Seed", "seed", "a new one each time")
    with gr.Row(elem_id="seed-row"):
        keep = gr.Button("Keep the one shown", size="sm", min_width=0, scale=0, elem_id="keep")
        gr.Button("New each time", size="sm", min_width=0, scale=0, elem_id="dice").click(str, None, seed, **QUIET, queue=False)
    size.change(lambda chosen: gr.update(visible=chosen == OWN_SIZE), size, own, **QUIET, queue=False)
    fields: dict[str, Component] = {"size": size, "width": width, "height": height, "frames": frames, "fps": fps, "steps": steps, "cfg": cfg, "seed": seed}
    return fields, own, length, keep


def _number(label: str, name: str, placeholder: str = "usual") -> gr.Textbox:
    """A number as text: empty is a meaning of its own, and gradio's number field shows it as 0; seeds are beyond what JavaScript counts exactly."""
    return gr.Textbox(label=label, placeholder=placeholder, max_lines=1, min_width=110, elem_id=name)


def _fields_of_kind(kind: str) -> list[Any]:
    """Size starts again, since pictures and clips have other sizes; the fields of clips come and go."""
    clip = gr.update(visible=kind == "video")
    return [gr.update(choices=SIZES.get(kind, PICTURE_SIZES), value=AS_PRESET), gr.update(visible=False), clip, clip]


def _presses(handlers: Handlers, shown: gr.BrowserState, stage: gr.HTML, cancel: gr.Button) -> Press:
    """How a button is wired to a submit: the job goes onto the stage and is followed there, a refusal stays beside the button."""

    def press(triggers: list[Any], submit: Any, inputs: set[Component], refusal: gr.HTML) -> None:
        pressed = gr.on(triggers, submit, inputs, [shown, refusal], **QUIET)
        pressed.then(None, js=TO_STAGE)
        pressed.then(_follow(handlers), shown, [stage, cancel], trigger_mode="multiple", **QUIET)

    return press


def _wire_making(handlers: Handlers, fields: Mapping[str, Component], create: gr.Button, refusal: gr.HTML, press: Press) -> None:
    def submit(values: dict[Component, Any], request: gr.Request) -> tuple[Any, str]:
        job_id, said = handlers.create({name: values[field] for name, field in fields.items()}, visitor_of(request))
        return (job_id if job_id else gr.skip()), cards.sentence(said)

    press([create.click, fields["prompt"].submit], submit, set(fields.values()), refusal)  # type: ignore[attr-defined]


def _wire_rest(
    page: gr.Blocks, handlers: Handlers, seed: Component, keep: gr.Button, shown: gr.BrowserState, stage: gr.HTML, cancel: gr.Button, latest: gr.HTML,
    server: gr.HTML,
) -> None:  # fmt: skip
    held = gr.State("")

    def refresh(before: str, request: gr.Request) -> tuple[Any, Any]:
        now = handlers.latest(visitor_of(request))
        return (gr.skip(), gr.skip()) if now == before else (now, now)

    def keep_seed(job_id: str | None, request: gr.Request) -> str:
        return handlers.last_seed(job_id, visitor_of(request))

    def choose(event: gr.EventData) -> str:
        return str(event.job)

    keep.click(keep_seed, shown, seed, **QUIET)
    chosen = latest.select(choose, None, shown, **QUIET)
    chosen.then(_follow(handlers), shown, [stage, cancel], trigger_mode="multiple", **QUIET)
    page.load(_follow(handlers), shown, [stage, cancel], **QUIET)
    page.load(handlers.servers, None, server, **QUIET)
    page.load(refresh, held, [latest, held], **QUIET)
    gr.Timer(REFRESH_S).tick(refresh, held, [latest, held], **QUIET)


def _follow(handlers: Handlers) -> Any:
    """The live view as gradio runs it: a stage and a Cancel button, again and again until the job has ended."""

    async def follow(job_id: str | None, request: gr.Request) -> AsyncIterator[tuple[Any, Any]]:
        before = None
        async for view in handlers.follow(job_id, request.session_hash or "", visitor_of(request)):
            now = await asyncio.to_thread(cards.stage, view)
            if now != before:
                yield now, _cancel_button(view)
            before = now
        # gradio sends the last values once more at the end; a page that has gone on to another job must not get this one back
        yield gr.skip(), gr.skip()

    return follow


def _cancel_button(view: View | None) -> Any:
    if view is None or view.job.is_final:
        return gr.update(visible=False)
    asked = view.job.cancel_asked
    return gr.update(visible=True, interactive=not asked, value="Cancelling" if asked else "Cancel")
