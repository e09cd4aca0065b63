"""What a request runs with: the family, its files among what the server has, LoRAs, and what is missing.

Owns the rules of choice, written down once: a named model decides; else the first family, in the order of families.py, whose files are all
there. For clips the input pictures come first: a last frame needs a graph for two, a first frame one that takes it. Knows no graph's nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from toolkit.errors import ModelUnknown, NodeUnknown, RequestInvalid
from toolkit.graph import NodeCatalog, offer
from toolkit.pipelines.families import CLIPS, FAMILIES, LOADERS, PICTURES, SDXL, Family, ModelFile, family_of

UPSCALER = ModelFile("RealESRGAN_x4plus_anime_6B.pth", "upscale_models", "https://github.com/xinntao/Real-ESRGAN/releases", ".")
Kind = Literal["image", "video"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A family with the server's files in its order, why it was chosen, and what was guessed."""

    family: Family
    files: Sequence[str]
    why: str
    warnings: Sequence[str] = ()


def names_of(folder: str, catalog: NodeCatalog) -> Sequence[str]:
    """The server's files in a folder, as its loader offers them."""
    node, name = LOADERS[folder]
    return catalog.choices(node, name) or (catalog.choices("LoraLoaderModelOnly", name) if folder == "loras" else ())


def choose(kind: Kind, catalog: NodeCatalog, asked: str | None = None, *, prefer: str | None = None, pictures: int = 0) -> Choice:
    """The family and files of a request.

    Args:
        kind: picture or clip.
        catalog: what the server has.
        asked: any unambiguous part of a model's name.
        prefer: the same, but only a wish.
        pictures: how many input pictures a clip begins and ends with.

    Raises:
        ModelUnknown: nothing fits, or more than one, with the nearest names; or files are missing, each with its folder. RequestInvalid: the
            model is of the other kind.
    """
    if asked is not None:
        return _named(kind, asked, catalog, pictures)
    if prefer is not None:
        try:
            return _named(kind, prefer, catalog, pictures)
        except (ModelUnknown, RequestInvalid):
            chosen = _best(kind, catalog, pictures)
            said = f"The pasted text names the model {prefer}, which the server does not have: {chosen.files[0]} is used."
            return Choice(chosen.family, chosen.files, chosen.why, (*chosen.warnings, said))
    return _best(kind, catalog, pictures)


def _best(kind: Kind, catalog: NodeCatalog, pictures: int) -> Choice:
    """The first family whose nodes and files are all there."""
    families = [family for family in (PICTURES if kind == "image" else CLIPS) if _suits(family, pictures)]
    for family in families:
        files = files_of(family, catalog)
        if None not in files and not lacking_nodes(family, catalog):
            why = f"{family.title}, the first family in our order whose files are all there{_because(pictures)}"
            return Choice(family, [name for name in files if name], why)
    unknown = [name for name in names_of("checkpoints", catalog) if family_of(name, "checkpoints") is None] if kind == "image" else []
    if unknown:
        return _guessed(unknown[0])
    raise _missing(kind, families, catalog)


def _suits(family: Family, pictures: int) -> bool:
    if family.kind == "image":
        return True
    return family.pictures == pictures or (pictures == 1 and family.takes_picture)


def _because(pictures: int) -> str:
    return {1: ", since a first frame is given", 2: ", since a first and a last frame are given"}.get(pictures, "")


def _guessed(name: str) -> Choice:
    said = f"Nothing in the name {name} tells its family: it is taken for an SDXL checkpoint."
    return Choice(SDXL, [name], f"{name}, the only kind of checkpoint there is", (said,))


def files_of(family: Family, catalog: NodeCatalog) -> list[str | None]:
    """The server's file for each place of a family, the usual name first; None where nothing fits."""
    found: list[str | None] = []
    for file in family.files:
        names = [name for name in names_of(file.folder, catalog) if file.fits(name) and name not in found]
        if file is family.files[0]:
            names = [name for name in names if family_of(name, file.folder) in _siblings(family)]
        found.append(next((name for name in names if name.endswith(file.name)), names[0] if names else None))
    return found


def _siblings(family: Family) -> list[Family]:
    """Families that share their main file: Wan's picture to clip, and first and last frame."""
    return [other for other in FAMILIES if other.files[0] == family.files[0]]


def _named(kind: Kind, asked: str, catalog: NodeCatalog, pictures: int) -> Choice:
    """The family of the model that was asked for, and its other files."""
    folders = ("checkpoints", "diffusion_models")
    places = {name: folder for folder in folders for name in names_of(folder, catalog)}
    name = pick(asked, list(places), "model", ModelFile("", "checkpoints" if kind == "image" else "diffusion_models"))
    family = family_of(name, places[name])
    if family is None and places[name] == "checkpoints" and kind == "image":
        return _guessed(name)
    if family is None:
        known = ", ".join(dict.fromkeys(f.title for f in FAMILIES if f.kind == kind))
        raise ModelUnknown(f"Nothing in the name {name} tells its family.", hint=f"Known are {known}; others run through a workflow of yours.", field="model")
    if family.kind != kind:
        raise RequestInvalid(f"{name} makes {'clips' if family.kind == 'video' else 'pictures'}.", field="model", hint="Ask for another model.")
    family = next((other for other in _siblings(family) if _suits(other, pictures)), family)
    if not _suits(family, pictures):
        raise RequestInvalid(f"{family.title} takes {('no input picture', 'a first frame', 'a first and a last frame')[family.pictures]}.", field="image")
    files = files_of(family, catalog)
    files[0] = name
    if None in files:
        raise _missing(kind, [family], catalog)
    return Choice(family, [file for file in files if file], f"{family.title}, since {name} was asked for")


def _normal(name: str) -> str:
    return re.sub(r"[\s_\-.]+", "", name.replace("\\", "/").lower())


def pick(asked: str, names: Sequence[str], what: str, place: ModelFile) -> str:
    """The one name that an unambiguous part of it means; separators and case do not count.

    Raises:
        ModelUnknown: none, with the nearest ones or where the file belongs; or several.
    """
    exact = [name for name in names if name in (asked, asked.replace("/", "\\"), asked.replace("\\", "/"))]
    found = exact or [name for name in names if _normal(asked) in _normal(name)]
    if not found:
        hint = offer(asked, names) if names else f"Put the file into models/{place.folder} of the server."
        raise ModelUnknown(f"The server has no {what} '{asked}' in {place.folder}.", hint=hint, field=what)
    if len(found) > 1:  # a whole name wins over names it is a part of
        found = [name for name in found if _normal(re.split(r"[\\/]", name)[-1].rsplit(".", 1)[0]) == _normal(asked)] or found
    if len(found) > 1:
        raise ModelUnknown(f"'{asked}' fits several {what}s: {', '.join(found[:6])}.", hint="Give more of the name.", field=what)
    return found[0]


def pick_lora(asked: str, catalog: NodeCatalog) -> str:
    """The server's LoRA of this name.

    Raises:
        ModelUnknown: none, or several.
    """
    return pick(asked, names_of("loras", catalog), "lora", ModelFile("", "loras"))


def check_embeddings(names: Iterable[str], catalog: NodeCatalog) -> None:
    """See that the server has the embeddings a prompt names; where nobody knows which it has, they pass.

    Raises:
        ModelUnknown: with the nearest one.
    """
    known = catalog.embeddings
    for name in names if known is not None else ():
        plain = name.replace("\\", "/").rsplit(".", 1)[0] if name.endswith((".pt", ".safetensors", ".bin")) else name.replace("\\", "/")
        if plain not in {one.replace("\\", "/") for one in known or ()}:
            hint = offer(name, list(known or ())) if known else "Put the file into models/embeddings of the server."
            raise ModelUnknown(f"The server has no embedding '{name}'.", hint=hint, field="prompt")


# ---- what is missing --------------------------------------------------------------------------------------------------------


def lacking(family: Family, catalog: NodeCatalog) -> list[ModelFile]:
    """The files of a family that the server does not have."""
    return [file for file, name in zip(family.files, files_of(family, catalog), strict=True) if name is None]


def missing(kind_or_family: str, catalogs: Sequence[NodeCatalog]) -> list[ModelFile]:
    """The fewest files that would let one of these servers make pictures (`image`), clips (`video`), or run this family; none if one can.

    Raises:
        RequestInvalid: no such family, with the nearest one.
    """
    wanted = [family for family in FAMILIES if kind_or_family in (family.kind, family.name)]
    if not wanted:
        hint = offer(kind_or_family, ["image", "video", *(family.name for family in FAMILIES)])
        raise RequestInvalid(f"'{kind_or_family}' is no family.", field="family", hint=hint)
    able = [lacking(family, catalog) for catalog in catalogs for family in wanted if not lacking_nodes(family, catalog)]
    return min(able, key=len, default=list(wanted[0].files))


def can_make(catalog: NodeCatalog) -> list[str]:
    """The families whose nodes and files are all there."""
    return [family.name for family in FAMILIES if not lacking_nodes(family, catalog) and not lacking(family, catalog)]


def lacking_nodes(family: Family, catalog: NodeCatalog) -> list[str]:
    """The node classes of a family that the server does not have."""
    return sorted({node["class_type"] for node in family.template().values()} - set(catalog.classes()))


def _missing(kind: Kind, families: Sequence[Family], catalog: NodeCatalog) -> ModelUnknown | NodeUnknown:
    """What to put where so that the family with the fewest files to get can run."""
    able = [family for family in families if not lacking_nodes(family, catalog)]
    if not able:
        nodes = lacking_nodes(families[0], catalog)
        return NodeUnknown(f"The server has no node {', '.join(nodes)}, which {families[0].title} needs.", hint="Update ComfyUI.")
    family = min(able, key=lambda family: (len(lacking(family, catalog)), len(family.files)))
    missing = [file.advice for file in lacking(family, catalog)]
    what = "clips" if kind == "video" else "pictures"
    said = f"The server cannot make {what} yet: it has no {family.title} files."
    return ModelUnknown(said, faults=missing, hint=" ".join(missing), field="model")
