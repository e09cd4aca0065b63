"""What waiting jobs will take, found by building their graphs before their turn.

Owns how many are built at once. What is wrong with a job is said when its turn comes, and not here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.feeder.clerk import Clerk
from toolkit.forecast import Forecaster
from toolkit.graph import NodeCatalog
from toolkit.inputs import WildcardFolder
from toolkit.jobs import OpenJob
from toolkit.ledger import Ledger
from toolkit.order import QUEUED
from toolkit.pipelines import build
from toolkit.times import Cost

RECIPES_AT_ONCE = 50  # a fifth of a second
RECIPES_A_BEAT = 10  # that are built to say what they will take; one costs a millisecond or two


class Rehearsal:
    """The waiting jobs of one server."""

    def __init__(self, ledger: Ledger, server_url: str, forecaster: Forecaster, wildcards: WildcardFolder, clerk: Clerk) -> None:
        self._ledger, self._server_url, self._forecaster, self._wildcards, self._clerk = ledger, server_url, forecaster, wildcards, clerk

    async def look_ahead(self, jobs: Sequence[OpenJob], catalog: NodeCatalog) -> None:
        """Build a job of each recipe that was never run here, to say what it will take."""
        firsts = {
            job.recipe_key: job for job in reversed(jobs) if job.recipe_key and job.status == QUEUED and not self._forecaster.knows(job.recipe_key)
        }  # fmt: skip
        for key, waiting in list(firsts.items())[-RECIPES_A_BEAT:]:
            with contextlib.suppress(ToolkitError):
                self._forecaster.remember(key, await self._clerk.ask(lambda waiting=waiting: self._graph_of(waiting, catalog)))  # type: ignore[misc]

    async def describe(self, jobs: Sequence[OpenJob], catalog: NodeCatalog) -> bool:
        """Say of jobs that were accepted before any catalog was known what they cost; whether there were any."""
        unsaid = [job for job in jobs if not job.recipe_key and job.status == QUEUED and self._server_url in job.servers][:RECIPES_AT_ONCE]
        if unsaid:
            await self._clerk.ask(lambda: self._ledger.describe({job.id: self._cost_of(job, catalog) for job in unsaid}))
        return bool(unsaid)

    def _cost_of(self, waiting: OpenJob, catalog: NodeCatalog) -> Cost:
        try:
            return Cost.of(self._graph_of(waiting, catalog))
        except ToolkitError:
            return Cost("none", ())

    def _graph_of(self, waiting: OpenJob, catalog: NodeCatalog) -> Mapping[str, Any]:
        return build(self._ledger.job(waiting.id).request, catalog, "toolkit/plan", self._wildcards).graph
