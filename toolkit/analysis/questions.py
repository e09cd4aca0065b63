"""The named questions, and how one is narrowed: its SQL text with conditions on the jobs it is about.

Owns the reading of questions.sql and the words that `where` takes. A question is never taken apart: it runs as it stands against a table
expression that shadows `jobs` with the jobs that fit, since every question goes through jobs. Values travel as parameters of the query, never
as text in it. Knows no connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from toolkit.errors import RequestInvalid
from toolkit.failures import nearest
from toolkit.stats.tables import Column, quoted, table

TEXTS = Path(__file__).with_name("questions.sql")
LEAVES_OUT_SIMULATED = re.compile(r"\bnot (?:jobs\.)?simulated\b")
BY_PART = {"model", "prompt", "negative_prompt"}  # a part is enough, as everywhere where a model is named
EXAMPLES = {"lora.name ilike '%mika%'": ("lora", "contains(lower(lora.name), lower({}))"), "group_name = 'cfg test'": ("batch", "group_name = {}")}
"""Conditions of the texts that name an example: which word of `where` stands for it, and the condition with a value."""
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
OTHERS = {"since": "created_at", "lora": "loras", "batch": "group_name"}
"""Words of `where` that are no columns, and the column each is about."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question by its short name, its sentence and its SQL."""

    name: str
    sentence: str
    sql: str

    @property
    def leaves_out_simulated(self) -> bool:
        """Whether the text counts real runs only."""
        return LEAVES_OUT_SIMULATED.search(self.sql) is not None


@cache
def questions() -> Mapping[str, Question]:
    """All questions by name, in the order of the file; "help" lists them and is last."""
    found = {}
    for text in TEXTS.read_text(encoding="utf-8").split("\n-- ")[1:]:
        title, query = text.split("\n", 1)
        name, sentence = title.split(": ", 1)
        found[name] = Question(name, sentence, query.strip().removesuffix(";"))
    return {**found, "help": Question("help", "What can be asked?", _listing(found.values()))}


def _listing(found: Iterable[Question]) -> str:
    rows = ",\n  ".join(f"({quoted(question.name)}, {quoted(question.sentence)})" for question in found)
    return f"from (values {rows}) as questions(name, question)"


def question(name: str) -> Question:
    """The question of this name.

    Raises:
        RequestInvalid: there is none, with the nearest one.
    """
    found = questions().get(name)
    if found is None:
        near = nearest(name, list(questions()))
        raise RequestInvalid(f"There is no question '{name}'.", hint=f"Did you mean {near}?" if near else '"help" lists them.', field="question")
    return found


# ---- narrowing ----------------------------------------------------------------------------------------------------------


class _Values:
    """The values that a query takes, each under a name of its own."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}

    def mark(self, name: str, value: Any) -> str:
        """`$name` in the text, for this value."""
        free, number = name, 1
        while free in self.given and self.given[free] != value:
            number += 1
            free = f"{name}_{number}"
        self.given[free] = value
        return f"${free}"


def narrowed(asked: Question, where: Mapping[str, Any], now: datetime) -> tuple[str, dict[str, Any]]:
    """The SQL of a question about some of the jobs only, and the values of its parameters.

    Args:
        asked: the question.
        where: what the jobs must be. A column of the table jobs: a value, several of which one must fit, or None for unknown; a part is
            enough for `model`, `prompt` and `negative_prompt`; a mapping for `labels`. `since`: a time or how long ago, also "7d" or "12h".
            `lora`: part of a name; `batch`: a name. `simulated`: True takes the built-in engine's runs in, which are left out else.
        now: what a `since` that is a duration counts from.

    Raises:
        RequestInvalid: an unknown name, with the nearest one, or a value that its column cannot have.
    """
    values = _Values()
    conditions = [_condition(name, value, values, now) for name, value in where.items() if name != "simulated"]
    sql = asked.sql
    if _flag("simulated", where.get("simulated", False)):
        sql = LEAVES_OUT_SIMULATED.sub("true", sql)
    for example, (name, condition) in EXAMPLES.items():
        if example in sql:  # without a value the question is about all of them
            sql = sql.replace(example, _either(condition, name, where[name], values, str) if where.get(name) is not None else "true")
    return _shadowed(sql, conditions), values.given


def _shadowed(sql: str, conditions: Sequence[str]) -> str:
    if not conditions:
        return sql
    shadow = f"with jobs as (from jobs where {' and '.join(conditions)})"
    return f"{shadow}, {sql.removeprefix('with ')}" if sql.startswith("with ") else f"{shadow}\n{sql}"


def _condition(name: str, value: Any, values: _Values, now: datetime) -> str:
    match name:
        case "since":
            return f"created_at >= {values.mark(name, _moment(name, value, now))}"
        case "lora":
            return _either("len(list_filter(loras, lambda used: contains(lower(used.name), lower({})))) > 0", name, value, values, str, "len(loras) = 0")
        case "labels":
            return _labels(value, values)
    column = _column(OTHERS.get(name, name), name)
    shape = "contains(lower({0}), lower({1}))" if column.name in BY_PART else "list_contains({0}, {1})" if column.type == "VARCHAR[]" else "{0} = {1}"
    return _either(shape.format(column.name, "{}"), name, value, values, _reader(column, now), f"{column.name} is null")


def _either(shape: str, name: str, value: Any, values: _Values, read: Callable[[Any], Any], unknown: str = "false") -> str:
    """The condition for a value, for one of several, or for none known."""
    if isinstance(value, list | tuple | set | frozenset | range):
        return f"({' or '.join(_either(shape, name, one, values, read, unknown) for one in value) or 'false'})"
    return unknown if value is None else shape.format(values.mark(name, read(value)))


def _labels(value: Any, values: _Values) -> str:
    if not isinstance(value, Mapping) or not value:
        raise RequestInvalid("labels takes names and values.", hint='Write labels={"probe": "before"}.', field="labels")
    pairs = [(values.mark("label", str(name)), values.mark("label_value", str(found))) for name, found in value.items()]
    return " and ".join(f"labels[{name}] = {found}" for name, found in pairs)


def _column(name: str, said: str) -> Column:
    known = {column.name: column for column in _columns()}
    if name not in known:
        near = nearest(said, [*known, *OTHERS, "labels"])
        hint = f"Did you mean {near}?" if near else f"The columns of jobs can, and {', '.join(OTHERS)}, simulated."
        raise RequestInvalid(f"'{said}' cannot narrow a question.", hint=hint, field=said)
    return known[name]


def _columns() -> Iterator[Column]:
    """The columns of jobs that a plain value can be compared with."""
    return (column for column in table("jobs").columns if column.type == "VARCHAR[]" or not re.search(r"\W|JSON", column.type))


# ---- values -------------------------------------------------------------------------------------------------------------


def _reader(column: Column, now: datetime) -> Callable[[Any], Any]:
    """Reads a value of this column, also from text."""

    def read(value: Any) -> Any:
        match column.type:
            case "BOOLEAN":
                return _flag(column.name, value)
            case "TIMESTAMPTZ":
                return _moment(column.name, value, now)
            case "DOUBLE":
                return _number(column.name, value, float)
            case "VARCHAR" | "VARCHAR[]":
                return str(value)
        return _number(column.name, value, int)

    return read


def _number(name: str, value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise RequestInvalid(f"{name} is a number, not {value!r}.", field=name) from None


def _flag(name: str, value: Any) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    found = known.get(str(value).lower())
    if found is None:
        raise RequestInvalid(f"{name} is true or false, not {value!r}.", field=name)
    return found


def _moment(name: str, value: Any, now: datetime) -> datetime:
    """A time, as one or as a duration before now; one without a zone is local, as everywhere in Python."""
    try:
        if isinstance(value, timedelta):
            return now - value
        ago = re.fullmatch(r"(\d+)\s*([smhdw])", str(value).strip())
        if ago:
            return now - timedelta(**{UNITS[ago[2]]: int(ago[1])})
        return (value if isinstance(value, datetime) else datetime.fromisoformat(str(value))).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise RequestInvalid(f"{name} is a time, not {str(value)!r}.", hint="Write 7d, 12h, or 2026-11-25T18:00.", field=name) from None
