"""The route of the log's named questions.

Owns how an address names what the jobs must be. Knows no question: those are read and refused by the studio.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from toolkit.service.schemas import AnswerSaid, gives
from toolkit.shapes import answer_json
from toolkit.studio import Studio


class Answers:
    """The log's answers."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def routes(self) -> APIRouter:
        """Its path below /api/anime."""
        routes = APIRouter()
        routes.add_api_route("/ask/{question}", self.ask, **gives(AnswerSaid))
        return routes

    def ask(self, question: str, request: Request) -> dict[str, Any]:
        """The answer to a named question, `help` lists them; narrowed by columns of the jobs, `since=7d`, `lora=`, `batch=`, `simulated=true`."""
        given: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            given.setdefault(name, []).append(value)
        return answer_json(self._studio.ask(question, **{name: values[0] if len(values) == 1 else values for name, values in given.items()}))
