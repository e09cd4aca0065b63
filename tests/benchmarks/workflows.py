"""ComfyUI's official templates: how many are converted, how many a server would take, and what is in the way of the rest."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.templates import FILES, templates
from toolkit.errors import ExportUnreadable
from toolkit.exported import to_api
from toolkit.graph import Fault, NodeCatalog, validate

HOW = "every official template in UI format"


def reason(faults: list[Fault]) -> str:
    """What is in the way of a graph, in a word; files that this server lacks are not."""
    kinds = {fault.kind for fault in faults}
    if "unknown_node" in kinds:
        return "uses classes that the server lacks"
    if kinds - {"not_in_list"}:
        return f"other faults: {', '.join(sorted(kinds - {'not_in_list'}))}"
    strange = sorted({str(fault.value) for fault in faults if not str(fault.value).lower().endswith(FILES)})
    return f"chooses what the server does not offer: {', '.join(strange)}" if strange else "would run" if not faults else "would run with its files"


def converted(name: str, object_info: dict[str, Any], row: Callable[..., None]) -> None:
    """Convert all templates for a server, and print what became of them."""
    catalog, found, taken = NodeCatalog(object_info), Counter[str](), list[float]()
    for ui in templates().values():
        began = time.perf_counter()
        try:
            graph = to_api(ui, catalog).graph
        except ExportUnreadable as error:
            found[str(error)] += 1
            continue
        taken.append(1000 * (time.perf_counter() - began))
        found[reason(validate(graph, catalog))] += 1
    table = Table(f"templates on {name}", "count")
    for words, count in found.most_common():
        table.add_row(words, str(count))
    Console().print(table)
    known = len(templates()) - found["uses classes that the server lacks"]
    right = found["would run"] + found["would run with its files"]
    faulty = sum(count for words, count in found.items() if words.startswith("other"))
    row(f"{name}: templates converted", len(taken), f"of {len(templates())}", "all", len(taken) == len(templates()), HOW)
    row(f"{name}: templates that lack nothing but files", right, f"of {known} whose classes it has", "no other faults", faulty == 0, HOW)
    row(f"{name}: one template", statistics.median(taken), "ms", "<= 10", statistics.median(taken) <= 10, HOW)
