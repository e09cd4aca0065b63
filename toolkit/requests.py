"""What a user asks for: frozen requests with one JSON shape in Python, REST, sidecar and ledger.

Owns the fields, their limits and the sentences that refuse wrong ones. Knows no server: what a model family makes of a request is in
pipelines/. A request without a seed draws one when it is made, so that the seed is part of what is stored.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, field_serializer, field_validator, model_validator
from rapidfuzz import process as fuzzy

from toolkit.errors import ExportUnreadable, RequestInvalid
from toolkit.metadata import read
from toolkit.prompts import split_infotext

PROMPT_LIMIT = 10_000
DRAWN_SEED_LIMIT = 2**32
EXACT_IN_JAVASCRIPT = 2**53
PROJECT_NAME = re.compile(r"[^\W_][\w .\-]{0,63}")
LORAS_LIMIT = 20
SERVER_NAME = re.compile(r"toolkit/([0-9a-f]{64})\.png")
FILE_NAME_LIMIT = 255  # bytes of UTF-8, on every usual file system
RESERVED_NAMES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}

Preset = Literal["draft", "standard", "high"]
Kind = Literal["image", "video", "workflow"]


def _drawn(seed: Any) -> Any:
    return secrets.randbelow(DRAWN_SEED_LIMIT) if seed is None else seed


Seed = Annotated[int | None, Field(ge=0, le=2**64 - 1), BeforeValidator(_drawn), Field(default=None, validate_default=True)]
Side = Annotated[int | None, Field(ge=64, le=4096, multiple_of=8)]
Prompt = Annotated[str, Field(max_length=PROMPT_LIMIT)]


class Lora(BaseModel):
    """A LoRA by (part of) its name; `strength` is the model's and, where the family has it, the text encoder's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=FILE_NAME_LIMIT)
    strength: float = Field(default=1.0, ge=-10, le=10)


class ImageRef(BaseModel):
    """An input picture kept by its sha256 in `inputs/` of the home, so that a request can be run again in a year; sizes in pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    width: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)

    @property
    def server_name(self) -> str:
        """What a loader node on a server is told: a folder of ours below its input folder."""
        return f"toolkit/{self.sha256}.png"


def pictures_of(graph: Mapping[str, Any]) -> list[str]:
    """The sha256 of every input picture that a graph's loaders name, in graph order."""
    values = [value for node in graph.values() for value in node.get("inputs", {}).values() if isinstance(value, str)]
    return list(dict.fromkeys(found[1] for value in values if (found := SERVER_NAME.fullmatch(value))))


def _reference(value: Any) -> Any:
    if isinstance(value, (str, bytes)) or hasattr(value, "__fspath__"):
        raise ValueError("an input picture is given by reference: `studio.upload(picture)` keeps it and returns one")
    return value


Picture = Annotated[ImageRef | None, BeforeValidator(_reference)]


class Request(BaseModel):
    """What all requests share; see ImageRequest, VideoRequest and WorkflowRequest."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    project: str = "default"
    labels: Mapping[str, str] = Field(default_factory=dict)
    timeout_s: float | None = Field(default=None, gt=0, le=7 * 86400)
    retry_on_lost: bool | None = None  # None: once more for pictures, never for clips and own workflows, which may cost much

    if not TYPE_CHECKING:

        def __init__(self, /, **fields: Any) -> None:  # positional: a field called `self` is only an unknown field
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise explain(error, type(self)) from error

    @field_validator("project")
    @classmethod
    def _project_is_a_folder_name(cls, name: str) -> str:
        too_long = len(name.encode()) > FILE_NAME_LIMIT
        if too_long or not PROJECT_NAME.fullmatch(name) or name[-1] in " ." or name.split(".")[0].lower() in RESERVED_NAMES:
            raise ValueError(f"'{name[:80]}' cannot be a project: use up to 64 letters, digits, spaces, '-', '_' or '.', starting with a letter or digit")
        return name

    @field_validator("prompt", check_fields=False)
    @classmethod
    def _prompt_says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return prompt

    @field_serializer("seed", check_fields=False, when_used="json")
    def _exact_in_javascript(self, seed: int) -> int | str:
        return str(seed) if seed > EXACT_IN_JAVASCRIPT else seed

    def but(self, **changes: Any) -> Self:
        """The same request with some fields changed, validated.

        Raises:
            RequestInvalid: an unknown field is refused with the nearest known one.
        """
        return type(self)(**{**self.model_dump(), **changes})

    def as_json(self) -> dict[str, Any]:
        """The one JSON shape: fields that say nothing are left out, seeds beyond 2**53 are strings."""
        fields = self.model_dump(mode="json", exclude_none=True)
        return {name: value for name, value in fields.items() if name != "loras" or value}


class ImageRequest(Request):
    """A picture from words. Sizes in pixels; what stays None is decided by the model's family and the preset."""

    kind: Literal["image"] = "image"
    prompt: Prompt
    negative_prompt: str | None = Field(default=None, max_length=PROMPT_LIMIT)
    model: str | None = None
    prefer_model: str | None = None  # used if the server has it; a pasted text names one
    preset: Preset = "standard"
    quality_tags: bool = True
    width: Side = None
    height: Side = None
    aspect: str | None = None
    steps: int | None = Field(default=None, ge=1, le=200)
    cfg: float | None = Field(default=None, ge=0, le=100)
    sampler: str | None = None
    scheduler: str | None = None
    seed: Seed = None
    batch_size: int = Field(default=1, ge=1, le=64)
    loras: tuple[Lora, ...] = Field(default=(), max_length=LORAS_LIMIT)
    image: Picture = None
    mask: Picture = None
    denoise: float | None = Field(default=None, ge=0, le=1)
    upscale: float | None = Field(default=None, gt=1, le=8)

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, fields: Any) -> Any:
        return _with_infotext(fields, cls)

    @model_validator(mode="after")
    def _mask_of_a_picture(self) -> Self:
        if self.mask is not None and self.image is None:
            raise ValueError("a mask says which part of `image` is made anew: give the picture too")
        if self.mask is not None and (self.width or self.height or self.aspect or self.upscale):
            raise ValueError("with a mask the picture decides the size: leave out width, height, aspect and upscale")
        return self


class VideoRequest(Request):
    """A clip from words. `seconds` or `frames`, not both; rounded to what the family can do, and said in the job's warnings."""

    kind: Literal["video"] = "video"
    prompt: Prompt
    negative_prompt: str | None = Field(default=None, max_length=PROMPT_LIMIT)
    model: str | None = None
    preset: Preset = "standard"
    quality_tags: bool = True
    seconds: float | None = Field(default=None, gt=0, le=60)
    frames: int | None = Field(default=None, ge=1, le=1024)
    fps: float | None = Field(default=None, ge=1, le=60)
    width: Side = None
    height: Side = None
    aspect: str | None = None
    steps: int | None = Field(default=None, ge=1, le=200)
    cfg: float | None = Field(default=None, ge=0, le=100)
    sampler: str | None = None
    scheduler: str | None = None
    seed: Seed = None
    loras: tuple[Lora, ...] = Field(default=(), max_length=LORAS_LIMIT)
    image: Picture = None
    last_image: Picture = None

    @model_validator(mode="before")
    @classmethod
    def _take_apart(cls, fields: Any) -> Any:
        return _with_infotext(fields, cls)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.seconds is not None and self.frames is not None:
            raise ValueError("give seconds or frames, not both")
        if self.last_image is not None and self.image is None:
            raise ValueError("a last picture needs a first one: give `image` too")
        return self


def _with_infotext(fields: Any, model: type[BaseModel]) -> Any:
    """The fields with what stands under a picture in a gallery taken out of the prompt; what was given apart from it wins."""
    prompt = fields.get("prompt") if isinstance(fields, Mapping) else None
    found = split_infotext(prompt) if isinstance(prompt, str) and len(prompt) <= PROMPT_LIMIT else None
    if found is None:
        return fields
    said = {name: value for name, value in found.fields.items() if name in model.model_fields}
    if found.negative_prompt is not None:
        said["negative_prompt"] = found.negative_prompt
    if fields.get("aspect") or model is VideoRequest:  # a picture's size is none for a clip
        said = {name: value for name, value in said.items() if name not in ("width", "height")}
    return {**said, **{name: value for name, value in fields.items() if value is not None}, "prompt": found.prompt}


def _graph_of(workflow: Any) -> Any:
    return workflow.api() if hasattr(workflow, "api") else workflow


class WorkflowRequest(Request):
    """The user's own workflow in API format: `{node id: {class_type, inputs}}`; a `Workflow` is taken as it is.

    `ui`: the same as ComfyUI's page draws it, if there is such a thing; it goes into the files, for whoever opens them on the page.
    """

    kind: Literal["workflow"] = "workflow"
    workflow: Annotated[Mapping[str, Any], BeforeValidator(_graph_of)]
    ui: Mapping[str, Any] | None = None
    strict: bool = False  # True: a graph of which the server would drop a branch is not run at all

    @model_validator(mode="before")
    @classmethod
    def _with_its_own_ui(cls, fields: Any) -> Any:
        ui = getattr(fields.get("workflow"), "ui", None) if isinstance(fields, dict) else None
        return {"ui": ui, **fields} if isinstance(ui, Mapping) else fields


AnyRequest = Annotated[ImageRequest | VideoRequest | WorkflowRequest, Field(discriminator="kind")]
_any_request: TypeAdapter[ImageRequest | VideoRequest | WorkflowRequest] = TypeAdapter(AnyRequest)
BY_KIND: Mapping[str, type[Request]] = {"image": ImageRequest, "video": VideoRequest, "workflow": WorkflowRequest}


def parse_request(fields: Mapping[str, Any]) -> ImageRequest | VideoRequest | WorkflowRequest:
    """The request of a JSON object with `kind`.

    Raises:
        RequestInvalid: naming the field, what it was and what it may be.
    """
    model = BY_KIND.get(str(fields.get("kind")))
    if model is None:
        raise RequestInvalid("`kind` must be image, video or workflow.", field="kind")
    return _any_request.validate_python(model(**fields))


def request_of(source: str | PathLike[str] | bytes) -> ImageRequest | VideoRequest | WorkflowRequest:
    """The request that one of our own pictures or clips was made by, read from the file: submitted again, it makes the same again.

    Raises:
        ExportUnreadable: the file holds no request, or one that this version cannot read.
    """
    found = read(source).request
    name = "The data" if isinstance(source, bytes) else source
    if found is None:
        raise ExportUnreadable(f"{name} holds no request of this toolkit.", hint="Workflow.load reads its graph.")
    try:
        return parse_request(found)
    except (RequestInvalid, TypeError) as error:
        raise ExportUnreadable(f"{name} holds a request that cannot be read: {error}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> RequestInvalid:
    """One sentence a user can act on for what pydantic found first; unknown fields first, since a typo hides the rest."""
    found = sorted(error.errors(include_url=False), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = found[0]
    name = ".".join(str(part) for part in fault["loc"] if part != "function-before") or None
    return RequestInvalid(_sentence(dict(fault), name, model), field=name)


def _sentence(fault: dict[str, Any], name: str | None, model: type[BaseModel]) -> str:
    if fault["type"] == "extra_forbidden":
        near = fuzzy.extractOne(str(name), list(model.model_fields), score_cutoff=60)
        return f"Unknown field `{name}`" + (f": did you mean `{near[0]}`?" if near else f"; known are {', '.join(sorted(model.model_fields))}.")
    if fault["type"] == "missing":
        return f"`{name}` is missing."
    if fault["type"] == "string_too_long":
        return f"`{name}` has {len(fault['input'])} characters: at most {fault['ctx']['max_length']} are allowed."
    said = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{said[0].upper()}{said[1:]}."
    return f"`{name}` is {_shown(fault['input'])}: {_allowed(name, model) or said[0].lower() + said[1:]}."


def _allowed(name: str | None, model: type[BaseModel]) -> str | None:
    """The range of a numeric field in words, from the field's own constraints."""
    schema = model.model_json_schema()["properties"].get(name or "", {})
    parts = [part for part in schema.get("anyOf", [schema]) if part.get("type") in ("integer", "number")]
    if not parts:
        return None
    rules = {**schema, **parts[0]}
    low, above, high = rules.get("minimum"), rules.get("exclusiveMinimum"), rules.get("maximum")
    word = "a whole number" if parts[0]["type"] == "integer" else "a finite number"
    step = f" in steps of {rules['multipleOf']}" if "multipleOf" in rules else ""
    limits = f" above {above}, at most {high}" if above is not None else f" from {low} to {high}" if low is not None else ""
    return f"it must be {word}{limits}{step}"


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
