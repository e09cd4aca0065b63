"""The probe: small fixed jobs on every server, each cold and then warm, so that before and after a change can be compared.

Owns what is asked and in which order: one job at a time, for its own server alone, with the same words, sizes and seeds at every probe. Knows no
answer: the label is what question `probe` looks for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from toolkit.errors import JobError, ServerError
from toolkit.graph import NodeCatalog
from toolkit.pipelines.choosing import can_make, files_of
from toolkit.pipelines.families import FAMILIES, Family
from toolkit.progress import duration
from toolkit.requests import ImageRequest, Request, VideoRequest
from toolkit.studio.handles import JobHandle

if TYPE_CHECKING:
    from toolkit.settings import ServerAddress
    from toolkit.studio.studio import Studio

PROMPT = "1girl, fox ears, silver hair, shrine, autumn leaves, smile"
TRIES = 3
SEED = 20_250_101


@dataclass(frozen=True, slots=True)
class Probe:
    """One job of a probe, on its way: which recipe, on which server, and whether its model was unloaded before."""

    handle: JobHandle
    family: str
    server_url: str
    warmth: str

    @property
    def told(self) -> str:
        """How it went, in a line."""
        job = self.handle.job
        timings = job.timings
        about = f"{self.family} on {job.server_url or self.server_url}, {(timings and timings.warmth) or self.warmth}"
        if not job.is_done or timings is None or timings.run_s is None:
            return f"{about}: {job.status}" + (f". {job.error}" if job.error else "")
        return f"{about}: {duration(timings.run_s)}" + (f", {timings.step_s:.3g} s a step" if timings.step_s else "")


def probes(studio: Studio, label: str) -> Iterator[Probe]:
    """Ask for the jobs one by one; the next is asked for when whoever takes them comes back, and the one before has ended.

    Raises:
        ServerUnreachable: none of the named servers answers.
    """
    for url, catalog in studio._servers.catalogs().items():
        address = next(address for address in studio._servers.addresses if address.url == url)
        for family in (family for family in FAMILIES if family.name in can_make(catalog) and not family.pictures):
            yield from _of_recipe(studio, address, family, _request(family, catalog, label))


def _of_recipe(studio: Studio, address: ServerAddress, family: Family, request: Request) -> Iterator[Probe]:
    """Cold, then warm; once more where somebody else's job came between and it was not."""
    for wanted, seed in (("cold", SEED), ("warm", SEED + TRIES)):
        for number in range(TRIES):
            if wanted == "cold":
                with contextlib.suppress(ServerError):  # a server that cannot unload says so in the job's warmth
                    studio._servers.free(address)
            probe = Probe(_accepted(studio, address, request.but(seed=seed + number)), family.name, address.url, wanted)
            yield probe
            with contextlib.suppress(JobError):
                probe.handle.wait()
            job = probe.handle.job
            if not job.is_done:
                return
            if job.timings and job.timings.warmth == wanted:
                break


def _request(family: Family, catalog: NodeCatalog, label: str) -> Request:
    """Small enough for a minute on a slow card, and of a size that every family takes."""
    fields = {"prompt": PROMPT, "model": files_of(family, catalog)[0], "project": "probe", "labels": {"probe": label}, "seed": SEED}
    if family.kind == "image":
        return ImageRequest(**fields, width=512, height=512, steps=8)
    return VideoRequest(**fields, width=480, height=320, frames=17, preset="draft")


def _accepted(studio: Studio, address: ServerAddress, request: Request) -> JobHandle:
    """A job for this server alone, whatever else of the studio's could run it."""
    new, _ = studio._new(request, [address])
    (job,) = studio._accepted([replace(new, reuse=False)])
    return JobHandle(studio, job.id)
