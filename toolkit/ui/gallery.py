"""The Gallery tab: what was made here, newest first, to find again, to keep, to reject, to throw away.

Owns which filters there are. Which outputs fit is a question of the log (studio.gallery); guests ask it about their own jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from toolkit.errors import ToolkitError
from toolkit.jobs import Job
from toolkit.studio import OutputHandle, Studio
from toolkit.ui import cards
from toolkit.ui.events import plain, pressable
from toolkit.visitors import THE_OWNER, Visitor

A_PAGE, MOST = 24, 480
BIN = "bin"
WHICH = [("All", ""), ("Kept", "keep"), ("Rejected", "reject"), ("In the bin", BIN)]
ANY = [("All", "")]
SIMULATED = "These are stand-in drawings: this toolkit has no ComfyUI yet. Once it has one, they stay out of the gallery."


def only_engine(studio: Studio) -> bool:
    """Whether nothing but the built-in engine draws here, so that its drawings are what there is to show."""
    return all(address.is_engine for address in studio._servers.addresses)


class Shelf:
    """Outputs, found and shown."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def shown(self, values: Mapping[str, Any], limit: int = A_PAGE, visitor: Visitor = THE_OWNER) -> str:
        """The outputs that fit as HTML, or why there are none."""
        limit = max(A_PAGE, min(int(limit), MOST))
        try:
            found = self._found(values, limit + 1, visitor)
        except ToolkitError as error:
            return cards.refusal(error)
        jobs = {job.id: job for job in self._studio._ledger.these([output.job_id for output in found])}
        said = self._studio._ledger.verdicts(list(jobs))
        tiles = [_tile(output, jobs[output.job_id], said.get((output.job_id, output.file.number))) for output in found[:limit] if output.job_id in jobs]
        note = cards.note(SIMULATED) if only_engine(self._studio) else ""
        if not tiles:
            return f'{note}<p class="say">Nothing here.</p><p class="hush">Make something, or ask for less.</p>'
        more = '<p class="acts"><button type="button" class="act" data-act="more">Show more</button></p>' if limit < len(found) and limit < MOST else ""
        return f'{note}<div class="tiles">{"".join(tiles)}</div>{more}'

    def _found(self, values: Mapping[str, Any], limit: int, visitor: Visitor) -> list[OutputHandle]:
        which = {name: value for name in ("project", "model") if (value := values.get(name))} | self._whose(visitor)
        verdict, search = values.get("verdict") or None, str(values.get("search") or "").strip() or None
        if verdict == BIN:
            return [output for output in self._studio.trashed() if visitor.is_owner or self._studio._ledger.owns(visitor.person, job_id=output.job_id)][:limit]
        return list(self._studio.gallery(verdict=verdict, search=search, limit=limit, **which))

    def _whose(self, visitor: Visitor) -> dict[str, Any]:
        return ({"simulated": True} if only_engine(self._studio) else {}) | ({} if visitor.only is None else {"person": visitor.only})

    def choices(self, visitor: Visitor = THE_OWNER) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The projects and models there are to choose from."""
        query = "from jobs select distinct {0} where {0} is not null and ($person is null or person = $person) order by 1"
        asked = [self._studio.sql(query.format(column), person=visitor.only).fetchall() for column in ("project", "model")]
        projects, models = [[*ANY, *((name, name) for (name,) in found)] for found in asked]
        return projects, models


def _tile(output: OutputHandle, job: Job, verdict: str | None) -> str:
    file, what = output.file, cards.asked(job)[:120]
    kind = "clip" if file.kind == "video" else "picture"
    is_gone = file.disk == "trashed"
    doing = cards.button("restore", job, "Bring back", file.number) if is_gone else cards.verdicts(job, file, verdict)
    mark = '<span class="play" aria-hidden="true">▶</span>' if kind == "clip" else ""
    show = (
        f'<button type="button" class="thumb" data-act="show" data-job="{cards.text(job.id)}" aria-label="Show this {kind}: {cards.text(what)}">'
        f"{cards.small(file)}{mark}</button>"
    )
    return f'<div class="tile {cards.text(verdict or "")}">{show}<span class="what">{cards.text(what)}</span><p class="acts">{doing}</p></div>'


def build_gallery() -> tuple[dict[str, Component], gr.HTML, gr.HTML]:
    """The filters by name, the place for refusals, and the shelf."""
    with gr.Row(elem_id="filters"):
        fields: dict[str, Component] = {
            "search": gr.Textbox(label="Search", placeholder="prompt, model, LoRA, file", max_lines=1, min_width=180, elem_id="search"),
            "project": gr.Dropdown(ANY, value="", label="Project", allow_custom_value=True, min_width=130, elem_id="project"),
            "model": gr.Dropdown(ANY, value="", label="Model", allow_custom_value=True, min_width=150, elem_id="gallery-model"),
            "verdict": gr.Radio(WHICH, value="", label="Which", min_width=260, elem_id="which"),
        }
    return fields, plain("", "gallery-refusal"), pressable("", "gallery")


def changes_of(fields: Mapping[str, Component]) -> list[Any]:
    """The events upon which the shelf is filled anew: a search when it is sent, the others at once."""
    return [fields["search"].submit, *(fields[name].input for name in ("project", "model", "verdict"))]  # type: ignore[attr-defined]
