"""The page itself: its tabs, where they stand, and what happens when one presses.

Owns layout and wiring. A press submits and returns; following a job is an event of its own without a limit on how many run at once, so
gradio's queue never holds a job. What programs may call is programs.py's; no other event is part of a public API.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from toolkit.errors import JobUnknown, ToolkitError
from toolkit.studio import Studio
from toolkit.ui import cards
from toolkit.ui.about import About
from toolkit.ui.acts import Acts, Outcome
from toolkit.ui.create import PICTURES, Form, Making, build_form, wire_names, wire_plan
from toolkit.ui.events import QUIET, plain, pressable, pressed, visitor_of
from toolkit.ui.form import values_of
from toolkit.ui.gallery import A_PAGE, Shelf, build_gallery, changes_of
from toolkit.ui.live import Live, View, look
from toolkit.ui.mending import keep_ids
from toolkit.ui.programs import program_calls
from toolkit.ui.queue import Line
from toolkit.ui.timings import Answering, build_timings, choices
from toolkit.ui.workflow import Press, WorkflowHandlers, workflow_tab
from toolkit.visitors import THE_OWNER, Visitor

LATEST = 8
REFRESH_S = 2.0
CREATE, QUEUE, GALLERY, TIMINGS, ABOUT = "create", "queue", "gallery", "timings", "about"


class Handlers:
    """What the page shows of jobs; each can be called without a browser."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._live = Live(studio)
        self.making, self.acts, self.line, self.shelf = Making(studio), Acts(studio), Line(studio), Shelf(studio)

    async def follow(self, job_id: Any, page: str, visitor: Visitor = THE_OWNER) -> AsyncIterator[View | None]:
        """Views of the job until it has ended; None when there is nothing to show."""
        try:
            async for view in self._live.follow(job_id if isinstance(job_id, str) and job_id else "none", page, visitor.only):
                yield view
        except JobUnknown:  # nothing made yet, or the browser remembers a job of another home
            yield None

    def last_seed(self, job_id: Any, visitor: Visitor = THE_OWNER) -> str:
        """The seed of the job on the stage, to keep it."""
        try:
            return str(self.acts.handle(job_id, visitor).job.seed)
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
            return cards.refusal(error, is_new=False)


@dataclass(frozen=True)
class Stage:
    """Where one job is shown, which one, and what else there is to say of it."""

    shown: gr.BrowserState
    html: gr.HTML
    cancel: gr.Button
    aside: gr.HTML


def build_page(studio: Studio, *, is_public: bool = False) -> gr.Blocks:
    """The page over a studio; mount it with `page_options()`. In public there is no SQL console."""
    keep_ids()
    handlers, about, answering = Handlers(studio), About(studio), Answering(studio, has_console=not is_public)
    page: gr.Blocks = gr.Blocks(title="anime-toolkit", analytics_enabled=False, fill_width=True, delete_cache=(3600, 24 * 3600))
    with page:
        shown = gr.BrowserState(None, storage_key="anime-toolkit-job", secret="not-a-secret-only-an-id")
        with gr.Row(elem_id="top"):
            gr.HTML("<h1>anime-toolkit</h1>", apply_default_css=False, min_width=160, elem_id="brand")
            server = plain("", "server")
        with gr.Tabs(elem_id="nav") as tabs:
            with gr.Tab("Create", id=CREATE):
                with gr.Row(elem_id="work", equal_height=False):
                    with gr.Column(scale=5, min_width=320, elem_id="form"), gr.Tabs(elem_id="tabs"):
                        with gr.Tab("In words"):
                            form = build_form()
                        with gr.Tab("Workflow", elem_id="workflow-tab") as own_tab:
                            own = gr.Column()
                    with gr.Column(scale=7, min_width=320, elem_id="result"):
                        html = pressable(cards.EMPTY_STAGE, "stage")
                        stage = Stage(shown, html, gr.Button("Cancel", variant="secondary", visible=False, elem_id="cancel"), plain("", "aside"))
                latest = pressable("", "latest")
            with gr.Tab("Queue", id=QUEUE) as queue_tab:
                line = pressable("", "queue")
            with gr.Tab("Gallery", id=GALLERY) as gallery_tab:
                filters, trouble, shelf = build_gallery()
            with gr.Tab("Timings", id=TIMINGS) as timings_tab:
                asked, answer, console = build_timings(answering)
            with gr.Tab("About", id=ABOUT) as about_tab:
                servers = plain("", "about")
        press = _presses(handlers, stage)
        _wire_form(page, handlers, form, stage, press)
        with own:
            workflow_tab(WorkflowHandlers(studio), press)
        page.load(_for_the_owner, None, own_tab, **QUIET)
        lists = {"latest": latest, "queue": line}
        for shown_list in (html, *lists.values()):
            _wire_acts(handlers, shown_list, stage, form, tabs)
        _wire_lists(page, handlers, queue_tab, lists)
        _wire_gallery(handlers, gallery_tab, filters, trouble, shelf, stage, tabs)
        _wire_timings(answering, timings_tab, asked, answer, console)
        _wire_about(about, about_tab, servers)
        _wire_stage(page, handlers, stage, server)
    for event in page.fns.values():
        event.api_visibility = "private"  # gr.render has no word for that
    with page:
        program_calls(studio)
    page.queue(default_concurrency_limit=None)
    page.has_launched = True  # gradio 6.31 sees to it that an input was uploaded only where `launch` was called, and a page that is mounted is not
    return page


def _presses(handlers: Handlers, stage: Stage) -> Press:
    """How a button is wired to a submit: the job goes onto the stage and is followed there, a refusal stays beside the button."""

    def press(triggers: list[Any], submit: Any, inputs: set[Component], refusal: gr.HTML) -> None:
        _followed(gr.on(triggers, submit, inputs, [stage.shown, refusal], **QUIET), handlers, stage)

    return press


def _followed(event: Any, handlers: Handlers, stage: Stage) -> None:
    event.then(_follow(handlers), stage.shown, [stage.html, stage.cancel], trigger_mode="multiple", **QUIET)


def _wire_form(page: gr.Blocks, handlers: Handlers, form: Form, stage: Stage, press: Press) -> None:
    fields, making = form.fields, handlers.making

    def submit(values: dict[Component, Any], request: gr.Request) -> tuple[Any, str]:
        job_id, error = making.submit({name: values[field] for name, field in fields.items()}, visitor_of(request))
        return (job_id if job_id else gr.skip()), cards.refusal(error)

    def keep_seed(job_id: Any, request: gr.Request) -> str:
        return handlers.last_seed(job_id, visitor_of(request))

    press([form.create.click, fields["prompt"].submit], submit, set(fields.values()), form.refusal)  # type: ignore[attr-defined]
    form.lock.click(keep_seed, stage.shown, fields["seed"], **QUIET)
    wire_plan(making, form)
    wire_names(page, making, form)


def _wire_acts(handlers: Handlers, shown: gr.HTML, stage: Stage, form: Form, tabs: gr.Tabs) -> None:
    """A press on a job: what it comes to goes onto the stage, into the form, or beside it."""
    names = [name for name in form.fields if name not in PICTURES]

    def act(values: dict[Component, Any], event: gr.EventData, request: gr.Request) -> list[Any]:
        done = handlers.acts.press(pressed(event), {name: values[field] for name, field in form.fields.items()}, visitor_of(request))
        filled = values_of(done.request, names) if done.request is not None else {}
        goes = gr.update(selected=CREATE) if done.job_id or filled else gr.skip()
        return [done.job_id or gr.skip(), _said(done), goes, *(filled.get(name, gr.skip()) for name in names)]

    outputs = [stage.shown, stage.aside, tabs, *(form.fields[name] for name in names)]
    _followed(shown.select(act, set(form.fields.values()), outputs, **QUIET), handlers, stage)


def _said(done: Outcome) -> str:
    return cards.refusal(done.error) or cards.note(done.said)


def _wire_lists(page: gr.Blocks, handlers: Handlers, queue_tab: gr.Tab, lists: Mapping[str, gr.HTML]) -> None:
    """The latest jobs and the line, drawn anew where they have changed; the line only while somebody looks at it."""
    held, opened = gr.State({"latest": "", "queue": ""}), gr.State(CREATE)

    def refresh(before: dict[str, str], tab: str, request: gr.Request) -> tuple[Any, Any, Any]:
        visitor = visitor_of(request)
        drawn = {"latest": handlers.latest, "queue": handlers.line.shown}
        now = before | {name: draw(visitor) for name, draw in drawn.items() if (name == QUEUE) == (tab == QUEUE)}
        changed = [now[name] if now[name] != before[name] else gr.skip() for name in ("latest", "queue")]
        return changed[0], changed[1], (now if now != before else gr.skip())

    outputs = [lists["latest"], lists["queue"], held]
    tabs = queue_tab.parent
    assert isinstance(tabs, gr.Tabs)
    for tab in tabs.children:
        assert isinstance(tab, gr.Tab)
        event = tab.select(partial(str, tab.id), None, opened, **QUIET)
        if tab is queue_tab:
            event.then(refresh, [held, opened], outputs, **QUIET)
    page.load(refresh, [held, opened], outputs, **QUIET)
    gr.Timer(REFRESH_S).tick(refresh, [held, opened], outputs, **QUIET)


def _wire_gallery(handlers: Handlers, tab: gr.Tab, filters: dict[str, Component], trouble: gr.HTML, shelf: gr.HTML, stage: Stage, tabs: gr.Tabs) -> None:
    limit, inputs = gr.State(A_PAGE), set(filters.values())

    def show(values: dict[Component, Any], request: gr.Request, many: int = A_PAGE) -> str:
        return handlers.shelf.shown({name: values[field] for name, field in filters.items()}, many, visitor_of(request))

    def fill(values: dict[Component, Any], request: gr.Request) -> tuple[str, int, str]:
        return show(values, request), A_PAGE, ""

    def offer(request: gr.Request) -> tuple[Any, Any]:
        projects, models = handlers.shelf.choices(visitor_of(request))
        return gr.update(choices=projects), gr.update(choices=models)

    def act(values: dict[Component, Any], event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        press, many = pressed(event), values[limit]
        if press.get("act") == "more":
            return gr.skip(), show(values, request, many + A_PAGE), many + A_PAGE, "", gr.skip()
        done = handlers.acts.press(press, {}, visitor_of(request))
        if done.job_id:
            return done.job_id, gr.skip(), many, "", gr.update(selected=CREATE)
        return gr.skip(), show(values, request, many), many, _said(done), gr.skip()

    gr.on([tab.select, *changes_of(filters)], fill, inputs, [shelf, limit, trouble], **QUIET)
    tab.select(offer, None, [filters["project"], filters["model"]], **QUIET)
    _followed(shelf.select(act, {*inputs, limit}, [stage.shown, shelf, limit, trouble, tabs], **QUIET), handlers, stage)


def _wire_timings(answering: Answering, tab: gr.Tab, asked: list[Component], answer: gr.HTML, console: gr.Accordion) -> None:
    def show(name: str, since: str, request: gr.Request) -> tuple[Any, str, Any]:
        visitor = visitor_of(request)
        return gr.update(choices=choices(visitor)), answering.answer(name, since, visitor), gr.update(visible=visitor.is_owner and answering.has_console)

    tab.select(show, asked, [asked[0], answer, console], **QUIET)


def _wire_about(about: About, tab: gr.Tab, shown: gr.HTML) -> None:
    def show(request: gr.Request) -> str:
        return about.shown(visitor_of(request))

    tab.select(show, None, shown, **QUIET)


def _wire_stage(page: gr.Blocks, handlers: Handlers, stage: Stage, server: gr.HTML) -> None:
    def cancel(job_id: Any, request: gr.Request) -> None:
        handlers.acts.press({"act": "cancel", "job": job_id}, {}, visitor_of(request))

    def linked(request: gr.Request) -> Any:
        return request.query_params.get("job") or gr.skip()  # whose job it is, and whether there is one, is seen when it is followed

    stage.cancel.click(cancel, stage.shown, None, **QUIET)
    _followed(page.load(linked, None, stage.shown, **QUIET), handlers, stage)
    page.load(handlers.servers, None, server, **QUIET)


def _for_the_owner(request: gr.Request) -> Any:
    """A tab that guests have no use for: their workflows are refused."""
    return gr.update(visible=visitor_of(request).is_owner)


def _follow(handlers: Handlers) -> Any:
    """The live view as gradio runs it: a stage and a Cancel button, again and again until the job has ended."""

    async def follow(job_id: Any, request: gr.Request) -> AsyncIterator[tuple[Any, Any]]:
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
