r"""Prompts as people paste them: LoRA tags, choices, wildcards, and the whole text under a gallery's picture.

Owns the odd syntax of other tools and what becomes of it: `<lora:name:0.8>` leaves the text, `{a|b}` is drawn with the seed, `__name__` reads
a list, `[word]` and `{{word}}` become weights that ComfyUI knows. Escapes (`\(`, `\{`) stay as they are. Knows no server and no file: the
lines of a wildcard come from a function that is handed in.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.errors import RequestInvalid

Wildcards = Callable[[str], Sequence[str] | None]
"""The lines of a named list; None where there is none."""

DEPTH_LIMIT = 20  # a list may name another list; one that names itself would never end
LENGTH_LIMIT = 50_000  # characters of a drawn prompt

LORA = re.compile(r"<\s*(lora|lyco|lycoris)\s*:\s*([^:<>]+?)\s*(?::\s*(-?[\d.]+)\s*)?(?::\s*(-?[\d.]+)\s*)?(?::[^<>]*)?>", re.IGNORECASE)
FOREIGN = re.compile(r"<\s*(hypernet|segment|preset|base|refiner|object|wildcard|random)\s*:[^<>]*>", re.IGNORECASE)
WILDCARD = re.compile(r"__(?=[\w/.\-* ]*?[A-Za-z])([\w/.\-* ]+?)__")
CHOICE = re.compile(r"(?<!\\)\{((?:[^{}\\]|\\.)*)\}")  # the innermost one
SCHEDULE = re.compile(r"(?<!\\)\[([^\[\]]*?):([^\[\]]*?)(?::\s*([\d.]+)\s*)?\]|(?<!\\)\[([^\[\]|]+\|[^\[\]]+)\]")
LESS = re.compile(r"(?<!\\)\[((?:[^\[\]():|]|\([^\[\]()]*\))+)\]")
INVISIBLE = re.compile("[\x00-\x08\u200b-\u200f\u2060\ufeff\u00ad]")
EMBEDDING = re.compile(r"\bembedding:([^\s,:()<>|]+)")
LOUD = re.compile(r"(?<![\w.])(-?\d(?:\.\d+)?)::((?:(?!::).)+?)::")
LESS_WEIGHT, MORE_WEIGHT = 0.9, 1.05  # a pair of brackets in A1111 (1 / 1.1) and a pair of braces in NovelAI


@dataclass(frozen=True, slots=True)
class Expanded:
    """A prompt as it is sent: LoRAs taken out as (name, strength of the model, strength of the text encoder), and what was changed."""

    text: str
    loras: tuple[tuple[str, float, float], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def embeddings(self) -> list[str]:
        """The names after `embedding:`, each once."""
        return list(dict.fromkeys(EMBEDDING.findall(self.text)))


def expand(text: str, seed: int, wildcards: Wildcards = lambda name: None) -> Expanded:
    """What a prompt means; equal seeds draw equal choices.

    Raises:
        RequestInvalid: a wildcard that is not there, or lists that name each other without end.
    """
    if _is_json(text):  # as some models like their prompts: its braces are no choices
        return Expanded(text)
    draw, warnings = _Draw(seed), list[str]()
    text = INVISIBLE.sub("", html.unescape(text) if "&" in text and ";" in text else text)
    text = _drawn(text, draw, wildcards)
    loras = [_lora(found) for found in LORA.finditer(text)]
    foreign = sorted({found[0] for found in FOREIGN.finditer(text)})
    if foreign:
        warnings.append(f"Left out of the prompt, since ComfyUI does not know it: {', '.join(foreign)}.")
    text = _plainer(FOREIGN.sub("", LORA.sub("", text)), warnings)
    return Expanded(_tidied(text), tuple(loras), tuple(warnings))


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith(("{", "[")):
        return False
    try:
        return isinstance(json.loads(text), (dict, list))
    except (ValueError, RecursionError):
        return False


class _Draw:
    """Numbers that follow from a seed on every machine and Python."""

    def __init__(self, seed: int) -> None:
        self._seed, self._count = seed, 0

    def below(self, limit: float) -> float:
        """A number from 0 to under `limit`."""
        self._count += 1
        digest = hashlib.sha256(f"{self._seed} {self._count}".encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48 * limit


def _drawn(text: str, draw: _Draw, wildcards: Wildcards) -> str:
    for _ in range(DEPTH_LIMIT):
        before = text
        while (found := CHOICE.search(text)) is not None:
            text = text[: found.start()] + _chosen(found[1], draw) + text[found.end() :]
        text = WILDCARD.sub(lambda found: _line(found[1].strip(), draw, wildcards), text)
        if len(text) > LENGTH_LIMIT:
            raise RequestInvalid(f"The prompt grows beyond {LENGTH_LIMIT} characters when its wildcards are drawn.", field="prompt")
        if text == before:
            return text
    raise RequestInvalid("The prompt's wildcards name each other without end.", field="prompt", hint="Look into the lists below wildcards/.")


def _chosen(inside: str, draw: _Draw) -> str:
    """One of `a|b`, of weighted `0.5::a|2::b`, or several of `2$$a|b|c`; a lone word in braces is NovelAI's way to say it louder."""
    options = re.split(r"(?<!\\)\|", inside)
    if len(options) == 1:
        return f"({inside}:{MORE_WEIGHT:g})" if inside.strip() else ""
    count, options = _count_of(options, draw)
    weights = [_weight_of(option) for option in options]
    chosen: list[str] = []
    for _ in range(min(count, len(options))):
        place = _place(weights, draw)
        chosen.append(weights.pop(place)[1].strip())
    return ", ".join(chosen)


def _count_of(options: list[str], draw: _Draw) -> tuple[int, list[str]]:
    found = re.match(r"\s*(\d+)(?:-(\d+))?\$\$(?:[^$|]*\$\$)?", options[0])
    if found is None:
        return 1, options
    low, high = int(found[1]), int(found[2] or found[1])
    return low + int(draw.below(max(high - low, 0) + 1)), [options[0][found.end() :], *options[1:]]


def _weight_of(option: str) -> tuple[float, str]:
    found = re.match(r"\s*(\d+(?:\.\d+)?)::(?!.*::)", option)
    return (float(found[1]), option[found.end() :]) if found else (1.0, option)


def _place(weights: Sequence[tuple[float, str]], draw: _Draw) -> int:
    at = draw.below(sum(weight for weight, _ in weights))
    for place, (weight, _) in enumerate(weights):
        at -= weight
        if at < 0:
            return place
    return len(weights) - 1


def _line(name: str, draw: _Draw, wildcards: Wildcards) -> str:
    found = wildcards(name)
    if found is None:
        raise RequestInvalid(f"There is no wildcard list '{name}'.", field="prompt", hint=f"Put wildcards/{name}.txt into the home, a line a choice.")
    lines = [line.strip() for line in found if line.strip() and not line.lstrip().startswith("#")]
    return lines[int(draw.below(len(lines)))] if lines else ""


def _lora(found: re.Match[str]) -> tuple[str, float, float]:
    model = _number(found[3], 1.0)
    return found[2].strip(), model, _number(found[4], model)


def _number(text: str | None, otherwise: float) -> float:
    try:
        return float(text) if text else otherwise
    except ValueError:
        return otherwise


def _plainer(text: str, warnings: list[str]) -> str:
    """Brackets of A1111 in ComfyUI's words: `[word]` is quieter; what changes during sampling keeps its later part."""
    scheduled = [found[0] for found in SCHEDULE.finditer(text)]
    if scheduled:
        shown = ", ".join(scheduled[:3])
        warnings.append(f"ComfyUI draws one prompt from the first step to the last: of {shown} only the part that lasts longer is kept.")
        text = SCHEDULE.sub(_lasting, text)
    text = LOUD.sub(r"(\2:\1)", text)  # NovelAI's `1.5::rain::`
    while LESS.search(text):
        text = LESS.sub(rf"(\1:{LESS_WEIGHT:g})", text)
    return re.sub(r"\s*\bBREAK\b\s*,?", " ", text) if re.search(r"\bBREAK\b", text) else text


def _lasting(found: re.Match[str]) -> str:
    if found[4] is not None:  # [a|b] alternates
        return found[4].split("|")[0]
    before, after = (found[1], found[2]) if found[3] is not None else ("", found[1])  # [a:b:0.5], [a:0.5]
    when = _number(found[3] if found[3] is not None else found[2], 0.5)
    return after if (when if when <= 1 else when / 30) <= 0.5 else before


def _tidied(text: str) -> str:
    """Without the commas and spaces that a removed tag leaves behind; line breaks stay."""
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r"(?:[ \t]*,){2,}", ",", text)
    lines = [line.strip(" \t").lstrip(",").strip() for line in text.split("\n")]
    return "\n".join(lines).strip().rstrip(",").rstrip()


# ---- the text under a gallery's picture -------------------------------------------------------------------------------------


# ComfyUI's name: what A1111, Forge and Civitai call it; others have the same name everywhere
SAMPLERS: Mapping[str, str] = {
    "euler": "Euler", "euler_ancestral": "Euler a", "heun": "Heun", "lms": "LMS", "dpm_2": "DPM2", "dpm_2_ancestral": "DPM2 a",
    "dpmpp_2s_ancestral": "DPM++ 2S a", "dpmpp_2m": "DPM++ 2M", "dpmpp_sde": "DPM++ SDE", "dpmpp_2m_sde": "DPM++ 2M SDE",
    "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun", "dpmpp_3m_sde": "DPM++ 3M SDE", "dpm_fast": "DPM fast", "dpm_adaptive": "DPM adaptive", "ddim": "DDIM",
    "ddpm": "DDPM", "uni_pc": "UniPC", "lcm": "LCM", "er_sde": "ER SDE", "res_multistep": "Res Multistep",
}  # fmt: skip
SCHEDULERS: Mapping[str, str] = {
    "normal": "Normal", "karras": "Karras", "exponential": "Exponential", "simple": "Simple", "beta": "Beta", "sgm_uniform": "SGM Uniform",
    "ddim_uniform": "DDIM", "kl_optimal": "KL Optimal", "linear_quadratic": "Linear Quadratic",
}  # fmt: skip
BY_SAMPLER = {**{name.lower(): ours for ours, name in SAMPLERS.items()}, "euler ancestral": "euler_ancestral"}
BY_SCHEDULER = {**{name.lower(): ours for ours, name in SCHEDULERS.items()}, "ddim uniform": "ddim_uniform", "uniform": "normal"}
SETTINGS = re.compile(r"(?:^|\n)\s*(Steps:\s*\d+\s*,.*)\s*$", re.DOTALL)
PAIR = re.compile(r'\s*([A-Z][\w +\-./]*?):\s*("(?:\\.|[^"\\])*"|[^,"]*)(?:,|$)')


@dataclass(frozen=True, slots=True)
class Infotext:
    """A prompt with what stood under it: the negative prompt and settings, in a request's own names where we have them."""

    prompt: str
    negative_prompt: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)
    ignored: Sequence[str] = ()


def split_infotext(text: str) -> Infotext | None:
    """The parts of a text as A1111, Forge and Civitai write it; None if it is a plain prompt."""
    found = SETTINGS.search(text)
    settings, rest = (found[1], text[: found.start()]) if found else ("", text)
    prompt, mark, negative = rest.partition("Negative prompt:")
    if not found and (not mark or not (prompt == "" or prompt.endswith("\n"))):
        return None
    said = {name.strip().lower(): value.strip().strip('"') for name, value in PAIR.findall(settings.replace("\n", ", "))}
    fields = _fields_of(said)
    return Infotext(prompt.strip(), negative.strip() if mark else None, fields, tuple(sorted(said.keys() - KNOWN)))


KNOWN = {"steps", "sampler", "schedule type", "cfg scale", "seed", "size", "model", "denoising strength", "version", "model hash", "lora hashes"}


def _fields_of(said: Mapping[str, str]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, label, kind in (("steps", "steps", int), ("cfg", "cfg scale", float), ("seed", "seed", int)):
        if re.fullmatch(r"\d+(\.\d+)?", said.get(label, "")):
            fields[name] = kind(said[label])
    size = re.fullmatch(r"(\d+)\s*x\s*(\d+)", said.get("size", ""))
    if size:
        fields |= {"width": int(size[1]), "height": int(size[2])}
    if said.get("model"):
        fields["prefer_model"] = said["model"]
    return fields | sampler_of(said.get("sampler", ""), said.get("schedule type", ""))


def sampler_of(sampler: str, schedule: str = "") -> dict[str, str]:
    """Sampler and scheduler in ComfyUI's names for A1111's, as `DPM++ 2M Karras` or apart; nothing for what is not known."""
    name = sampler.strip().lower()
    ending = next((word for word in sorted(BY_SCHEDULER, key=len, reverse=True) if name.endswith(f" {word}") and name not in BY_SAMPLER), "")
    name = name.removesuffix(ending).strip() if ending else name
    found = {"sampler": BY_SAMPLER.get(name), "scheduler": BY_SCHEDULER.get(schedule.strip().lower() or ending)}
    return {role: value for role, value in found.items() if value}
