"""The locked versions against known advisories: below these floors something that was published is open.

Looked up on 2026-11-25: the 161 advisories that the Python Packaging Advisory Database had on these packages in October 2024, each range against each
pin (none hit), and what pages and pull requests told of later ones, package by package. pip-audit would ask a service for each; here is no network,
so this list is what a person must bring up to date, and a lock that falls below it fails.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.version import Version

LOCK = (Path(__file__).parents[1] / "requirements.lock").read_text()
PINS = re.findall(r"^([\w.\-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", LOCK, re.MULTILINE)
FLOORS = {
    "gradio": ("6.16.0", "GHSA-j36p-7w88-g82j traversal in FileExplorer; CVE-2026-48545, -28416, -28414 before it"),
    "starlette": ("1.3.1", "CVE-2026-54283 forms without limits; CVE-2026-48710 BadHost, CVE-2025-62727 Range before it"),
    "python-multipart": ("0.0.30", "CVE-2026-53538 fields parted at ';'; CVE-2026-40347 preambles before it"),
    "aiohttp": ("3.14.4", "PYSEC-2026-4371 ambiguous framing; more than twenty before it"),
    "h11": ("0.16.0", "CVE-2025-43859 chunked bodies"),
    "pillow": ("12.3.0", "writes beyond the heap and decompression bombs"),
    "filelock": ("3.20.3", "PYSEC-2026-1374, -1375 links in the way of a lock"),
    "urllib3": ("2.7.0", "CVE-2026-44431, -44432"),
    "requests": ("2.33.0", "PYSEC-2026-2275"),
    "idna": ("3.15", "slow encoding"),
    "jinja2": ("3.1.6", "CVE-2025-27516 sandbox"),
    "pygments": ("2.20.0", "slow lexers"),
    "orjson": ("3.9.15", "CVE-2024-27454 recursion"),
    "tornado": ("6.5.7", "CVE-2026-49855, -49853, -31958"),
    "jupyter-server": ("2.20.0", "CVE-2026-44727 stored XSS; CVE-2026-40934, -40110, -35397 before it"),
    "jupyterlab": ("4.5.7", "CVE-2026-40171"),
    "nbconvert": ("7.17.1", "CVE-2026-39378 reading files by a picture's path"),
    "mistune": ("3.3.0", "CVE-2026-49851"),
    "pytest": ("9.0.3", "PYSEC-2026-1845"),
}
# Open, and why it cannot be reached here. Taken out when a fixed version is locked.
OPEN = {
    "duckdb": (
        "2.0.0",
        "CVE-2026-111497: its Parquet reader's Brotli writes out of bounds on a crafted file. We write Parquet and read none; the console reads no file.",
    ),
}


@pytest.mark.parametrize("name", FLOORS)
def test_nothing_is_locked_below_what_closes_a_known_advisory(name: str) -> None:
    locked = [Version(version) for pin, version in PINS if pin == name]
    assert locked, f"{name} is not locked any more: take it out here"
    assert min(locked) >= Version(FLOORS[name][0]), FLOORS[name][1]


@pytest.mark.parametrize("name", OPEN)
def test_what_is_open_is_still_the_locked_version_and_not_reached(name: str) -> None:
    version, why = OPEN[name]
    assert [locked for pin, locked in PINS if pin == name] == [version], f"look whether it is closed: {why}"
    code = "".join(path.read_text() for path in (Path(__file__).parents[1] / "toolkit").rglob("*.py"))
    assert not re.search(r"read_parquet|parquet_scan", code), why
