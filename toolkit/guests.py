"""What an owner lets guests do: quotas, allowed models, words that every guest's picture leaves out. Pure values and arithmetic.

Owns the numbers and the sentences that refuse. Knows neither who a guest is nor how many jobs they have: the ledger counts, in the transaction that
accepts (ledger/people.py), so that a hundred requests at once are counted as they would be one after the other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from toolkit.errors import RequestInvalid, ToolkitError
from toolkit.requests import ImageRequest, Request, VideoRequest

OWNER = "owner"
SOMEONE = "someone"
# what a number of a job counts as where neither the request nor a server's catalog says it
USUAL = {"width": 1024, "height": 1024, "steps": 30, "frames": 1, "batch_size": 1}


class Quota(BaseModel):
    """What one guest may have: `pixels` is pixels x steps x frames of one job, `gpu_s_per_hour` the seconds that servers work for them."""

    model_config = ConfigDict(frozen=True)

    jobs_per_hour: int = 30
    in_line: int = 5
    pixels: int = 1_000_000_000
    gpu_s_per_hour: int = 1800
    upload_mb_per_hour: int = 200

    def check_size(self, request: Request, recipe: Mapping[str, Any]) -> None:
        """Refuse a job that is larger than this guest may ask for.

        Raises:
            RequestInvalid: with its size and the limit.
        """
        size = pixels_of(request, recipe)
        if size > self.pixels:
            said = f"That is {size / 1e6:.0f} million pixel steps (pixels x steps x frames); your limit is {self.pixels / 1e6:.0f} million a job."
            raise RequestInvalid(said, field="frames" if isinstance(request, VideoRequest) else "width", hint="Ask for a smaller size, fewer steps or frames.")


class Rules(BaseModel):
    """What holds for all guests: `models` are (parts of) names, none means any; `in_line` is how many jobs all guests together may have open."""

    model_config = ConfigDict(frozen=True)

    models: tuple[str, ...] = ()
    negative: str = ""
    in_line: int = 100

    def readings(self, request: Request) -> list[Request]:
        """The request as it may be made, by each model that would do; the first one that a server can run is meant.

        Raises:
            RequestInvalid: a workflow, or a model that guests may not use.
        """
        if not isinstance(request, ImageRequest | VideoRequest):
            raise RequestInvalid("Workflows of your own are for the owner of this page.", field="workflow", hint="Ask for a picture or a clip.")
        if not self.models:
            return [request]
        if request.model is None:
            return [request.but(model=model) for model in self.models]
        if not any(_plain(model) in _plain(request.model) for model in self.models):
            said = f"The owner lets guests use {', '.join(self.models)}; '{request.model[:60]}' is not one of them."
            raise RequestInvalid(said, field="model", hint="Leave `model` out.")
        return [request]

    def without(self, request: Request, usual: str | None) -> Request:
        """The request with the owner's words left out too; `usual` is what its model leaves out where the request says nothing."""
        said = getattr(request, "negative_prompt", None)
        said = (usual or "") if said is None else said
        if not self.negative or said.startswith(self.negative):
            return request
        return request.but(negative_prompt=", ".join(filter(None, (self.negative, said))))


def as_ruled(request: Request, quota: Quota, rules: Rules, recipe_of: Callable[[Request], Mapping[str, Any]]) -> Request:
    """A guest's request as the owner lets it be; `recipe_of` says what a server makes of one, or raises where none can.

    Raises:
        RequestInvalid: it may not be. ToolkitError: of `recipe_of`, for the first model that would do.
    """
    failures = list[ToolkitError]()
    for reading in rules.readings(request):
        try:
            recipe = recipe_of(reading)
        except ToolkitError as error:
            failures.append(error)
            continue
        quota.check_size(reading, recipe)
        return rules.without(reading, recipe.get("negative_prompt"))
    raise failures[0]


def pixels_of(request: Request, recipe: Mapping[str, Any]) -> int:
    """Pixels x steps x frames of a job, the larger one of what was asked for and what the graph says."""

    def number(name: str) -> float:
        known = [value for value in (getattr(request, name, None), recipe.get(name)) if isinstance(value, int | float)]
        return max(known, default=USUAL[name])

    return math.ceil(math.prod(number(name) for name in USUAL) * (getattr(request, "upscale", None) or 1) ** 2)


def _plain(name: str) -> str:
    """As pipelines compare names of models: separators and case do not count."""
    return re.sub(r"[\s_\-.]+", "", name.replace("\\", "/").lower())
