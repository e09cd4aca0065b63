"""The routes that ask the log: its named questions, and SQL.

Owns how an address names what the jobs must be. Knows no question: those are read and refused by the studio.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from toolkit.service.jobs import Body
from toolkit.service.schemas import AnswerSaid, QueryBody, SqlAnswer, gives, read, takes
from toolkit.shapes import answer_json
from toolkit.studio import Studio


class Answers:
    """The log's answers."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def routes(self) -> APIRouter:
        """Its paths below /api/anime."""
        routes = APIRouter()
        routes.add_api_route("/ask/{question}", self.ask, **gives(AnswerSaid))
        routes.add_api_route("/sql", self.sql, methods=["POST"], **gives(SqlAnswer), openapi_extra=takes(QueryBody))
        return routes

    def sql(self, fields: Body) -> dict[str, Any]:
        """One statement that reads, on the whole log: for the owner of the home. Stopped after 4 s; at most 10,000 rows and 2 MB, else `truncated`."""
        return self._studio.console(read(QueryBody, fields).query)

    def ask(self, question: str, request: Request) -> dict[str, Any]:
        """The answer to a named question, `help` lists them; narrowed by columns of the jobs, `since=7d`, `lora=`, `batch=`, `simulated=true`."""
        given: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            given.setdefault(name, []).append(value)
        return answer_json(self._studio.ask(question, **{name: values[0] if len(values) == 1 else values for name, values in given.items()}))
