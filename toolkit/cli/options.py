"""The options that several commands share, each said once.

Owns names and help texts. Knows no limits: what a value may be is the request's to refuse, in the same words as everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from toolkit.jobs import Priority
from toolkit.requests import Preset

Negative: TypeAlias = Annotated[
    str | None, typer.Option("--negative", "--negative-prompt", help="What to keep out; '' for nothing.", show_default="the model's own")
]
Model: TypeAlias = Annotated[str | None, typer.Option(help="Part of a model file's name.", show_default="the server's best")]
PresetOption: TypeAlias = Annotated[Preset, typer.Option(help="How much time to spend where no other option says.")]
QualityTags: TypeAlias = Annotated[bool, typer.Option(help="Add the model's own quality words to the prompt.")]
Side: TypeAlias = Annotated[int | None, typer.Option(help="Pixels, a multiple of 8.")]
Steps: TypeAlias = Annotated[int | None, typer.Option(help="Sampling steps.")]
Cfg: TypeAlias = Annotated[float | None, typer.Option(help="How strictly to follow the prompt.")]
Sampler: TypeAlias = Annotated[str | None, typer.Option(help="Sampler, e.g. euler_ancestral.")]
Scheduler: TypeAlias = Annotated[str | None, typer.Option(help="Scheduler, e.g. karras.")]
Seed: TypeAlias = Annotated[int | None, typer.Option(help="The same seed makes the same again.", show_default="drawn")]
Loras: TypeAlias = Annotated[list[str] | None, typer.Option("--lora", metavar="NAME[:STRENGTH]", help="A LoRA by part of its name; may be repeated.")]
Project: TypeAlias = Annotated[str, typer.Option(help="The folder its files go to, below projects/ of the home.")]
Picture: TypeAlias = Annotated[Path | None, typer.Option("--image", metavar="FILE", help="A picture to begin with.")]
Labels: TypeAlias = Annotated[list[str] | None, typer.Option("--label", metavar="NAME=VALUE", help="A label for the log; may be repeated.")]
TimeoutS: TypeAlias = Annotated[float | None, typer.Option("--timeout-s", help="Give the job up after these seconds.", show_default="never")]
RetryOnLost: TypeAlias = Annotated[
    bool | None, typer.Option("--retry-on-lost/--no-retry-on-lost", help="Send it once more if the server forgets it.", show_default="only pictures")
]
PriorityOption: TypeAlias = Annotated[Priority, typer.Option(help="Its place in the line of this home.")]
NoWait: TypeAlias = Annotated[bool, typer.Option("--no-wait", help="Print the job's id and leave; it goes on.")]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON object a line on stdout.")]
